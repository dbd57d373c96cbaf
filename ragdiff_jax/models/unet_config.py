"""What a U-Net is, read from diffusers' `unet/config.json`."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from ragdiff_jax.errors import UserError

# Values of diffusers fields that this U-Net is built for. Another value would silently compute something else.
_ONLY = {
    "act_fn": ("silu", "swish"),
    "attention_type": ("default",),
    "center_input_sample": (False,),
    "class_embed_type": (None,),
    "class_embeddings_concat": (False,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "cross_attention_norm": (None,),
    "downsample_padding": (1,),
    "dropout": (0, 0.0),
    "dual_cross_attention": (False,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "mid_block_only_cross_attention": (None, False),
    "mid_block_scale_factor": (1, 1.0),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "num_class_embeds": (None,),
    "only_cross_attention": (False,),
    "resnet_out_scale_factor": (1, 1.0),
    "resnet_skip_time_act": (False,),
    "resnet_time_scale_shift": ("default",),
    "reverse_transformer_layers_per_block": (None,),
    "time_cond_proj_dim": (None,),
    "time_embedding_act_fn": (None,),
    "time_embedding_dim": (None,),
    "time_embedding_type": ("positional",),
    "timestep_post_act": (None,),
}
_DOWN = ("DownBlock2D", "CrossAttnDownBlock2D")
_UP = ("UpBlock2D", "CrossAttnUpBlock2D")


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """Architecture of a U-Net of the SDXL kind; one entry a level where a tuple is asked for.

    Attributes:
      attention_heads: heads of each level (diffusers calls the field `attention_head_dim`, for its history).
      transformer_layers: transformer blocks a stack, each level; 0 where the level has no attention.
      cross_attention_dim: width of the text tokens.
      text_embed_dim: width of the pooled text in the added condition; 0 for a U-Net without one (SD 1 and 2).
      upcast_attention: kept for diffusers, which then takes SD 2.1's softmax in fp32 (as is always done here).
    """

    sample_size: int = 96
    in_channels: int = 4
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280)
    layers_per_block: int = 2
    transformer_layers: tuple[int, ...] = (0, 2, 10)
    attention_heads: tuple[int, ...] = (5, 10, 20)
    cross_attention_dim: int = 2048
    use_linear_projection: bool = True
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    flip_sin_to_cos: bool = True
    freq_shift: float = 0.0
    addition_time_embed_dim: int = 256
    text_embed_dim: int = 1280
    down_attention: tuple[bool, ...] = (False, True, True)
    up_attention: tuple[bool, ...] = (True, True, False)
    upcast_attention: bool = False

    def __post_init__(self):
        levels = len(self.block_out_channels)
        for field in ("transformer_layers", "attention_heads", "down_attention", "up_attention"):
            if len(getattr(self, field)) != levels:
                raise UserError(f"unet config: {field} has {len(getattr(self, field))} entries for {levels} levels")
        for channels in self.block_out_channels:
            if channels % self.norm_num_groups:
                raise UserError(
                    f"unet config: {channels} channels don't divide into {self.norm_num_groups} norm groups"
                )

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "UNetConfig":
        """Read diffusers' fields. Raises UserError naming every field whose value isn't supported."""
        wrong = [f"{k}={config[k]!r}" for k, allowed in _ONLY.items() if k in config and config[k] not in allowed]
        single = ("layers_per_block", "cross_attention_dim", "norm_num_groups")  # diffusers has lists of them too
        wrong += [f"{k}={config[k]!r}" for k in single if not isinstance(config.get(k, 1), int)]
        added = config.get("addition_embed_type")
        if added not in (None, "text_time"):
            wrong.append(f"addition_embed_type={added!r}")
        if config.get("num_attention_heads") is not None:
            wrong.append(f"num_attention_heads={config['num_attention_heads']!r}")
        channels = tuple(config.get("block_out_channels", (320, 640, 1280, 1280)))
        levels = len(channels)
        down = tuple(config.get("down_block_types", ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)))
        up = tuple(config.get("up_block_types", ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3))
        wrong += [f"down_block_types: {kind!r}" for kind in down if kind not in _DOWN]
        wrong += [f"up_block_types: {kind!r}" for kind in up if kind not in _UP]
        if wrong:
            raise UserError("unet config.json has values that this U-Net doesn't support: " + ", ".join(wrong))

        def per_level(name, default):
            value = config.get(name, default)
            return (value,) * levels if isinstance(value, int) else tuple(value)

        time_dim = config.get("addition_time_embed_dim") or 0
        projection = config.get("projection_class_embeddings_input_dim") or 0
        return cls(
            sample_size=config.get("sample_size") or 64,
            in_channels=config.get("in_channels", 4),
            out_channels=config.get("out_channels", 4),
            block_out_channels=channels,
            layers_per_block=config.get("layers_per_block", 2),
            transformer_layers=per_level("transformer_layers_per_block", 1),
            attention_heads=per_level("attention_head_dim", 8),
            cross_attention_dim=config.get("cross_attention_dim", 1280),
            use_linear_projection=config.get("use_linear_projection", False),
            norm_num_groups=config.get("norm_num_groups", 32),
            norm_eps=config.get("norm_eps", 1e-5),
            flip_sin_to_cos=config.get("flip_sin_to_cos", True),
            freq_shift=float(config.get("freq_shift", 0)),
            addition_time_embed_dim=time_dim if added else 0,
            text_embed_dim=projection - 6 * time_dim if added else 0,
            down_attention=tuple(kind == "CrossAttnDownBlock2D" for kind in down),
            up_attention=tuple(kind == "CrossAttnUpBlock2D" for kind in up),
            upcast_attention=bool(config.get("upcast_attention", False)),
        )

    def to_dict(self) -> dict[str, Any]:
        """diffusers' `config.json` of this U-Net."""
        added = self.text_embed_dim > 0
        return {
            "_class_name": "UNet2DConditionModel",
            "sample_size": self.sample_size,
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "block_out_channels": list(self.block_out_channels),
            "layers_per_block": self.layers_per_block,
            "transformer_layers_per_block": [max(1, depth) for depth in self.transformer_layers],
            "attention_head_dim": list(self.attention_heads),
            "cross_attention_dim": self.cross_attention_dim,
            "use_linear_projection": self.use_linear_projection,
            "norm_num_groups": self.norm_num_groups,
            "norm_eps": self.norm_eps,
            "flip_sin_to_cos": self.flip_sin_to_cos,
            "freq_shift": self.freq_shift,
            "addition_embed_type": "text_time" if added else None,
            "addition_time_embed_dim": self.addition_time_embed_dim if added else None,
            "projection_class_embeddings_input_dim": (
                self.text_embed_dim + 6 * self.addition_time_embed_dim if added else None
            ),
            "down_block_types": [_DOWN[a] for a in self.down_attention],
            "up_block_types": [_UP[a] for a in self.up_attention],
            "mid_block_type": "UNetMidBlock2DCrossAttn",
            "act_fn": "silu",
            "upcast_attention": self.upcast_attention,
        }

    @property
    def time_embed_dim(self) -> int:
        return 4 * self.block_out_channels[0]

    def sites(self) -> Iterator[tuple[str, int, int, int]]:
        """(name, depth, width, heads) of every transformer stack, in the order of the forward pass."""
        levels = len(self.block_out_channels)
        for level in range(levels):
            if self.down_attention[level]:
                for index in range(self.layers_per_block):
                    yield f"down_blocks_{level}/attentions_{index}", *self._stack(level)
        yield "mid_block/attentions_0", *self._stack(levels - 1)
        for step in range(levels):
            if self.up_attention[step]:
                for index in range(self.layers_per_block + 1):
                    yield f"up_blocks_{step}/attentions_{index}", *self._stack(levels - 1 - step)

    @property
    def last_site(self) -> str:
        return list(self.sites())[-1][0]

    def _stack(self, level: int) -> tuple[int, int, int]:
        return max(1, self.transformer_layers[level]), self.block_out_channels[level], self.attention_heads[level]
