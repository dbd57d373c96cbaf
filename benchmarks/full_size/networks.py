"""The published architectures, at their real size, and one small input for each."""

import dataclasses
from typing import Any

import numpy as np

from ragdiff_jax.weights.architectures import ARCHITECTURES


@dataclasses.dataclass(frozen=True)
class Network:
    """`kind` and `config` as `ragdiff weights import` calls them; `library` and `cls` name the original class."""

    kind: str
    config: str
    library: str
    cls: str

    @property
    def values(self) -> dict[str, Any]:
        """The original's config.json."""
        return dict(ARCHITECTURES[self.kind][self.config])


NETWORKS = {
    "unet-sdxl": Network("unet", "sdxl", "diffusers", "UNet2DConditionModel"),
    "unet-sd2-inpainting": Network("unet", "sd2-inpainting", "diffusers", "UNet2DConditionModel"),
    "vae-sdxl": Network("vae", "sdxl", "diffusers", "AutoencoderKL"),
    "vae-flux": Network("vae", "flux", "diffusers", "AutoencoderKL"),
    "clip-text-l": Network("clip-text", "vit-l", "transformers", "CLIPTextModelWithProjection"),
    "clip-text-h": Network("clip-text", "vit-h", "transformers", "CLIPTextModelWithProjection"),
    "clip-text-bigg": Network("clip-text", "bigg", "transformers", "CLIPTextModelWithProjection"),
    "clip-vision-l": Network("clip-vision", "vit-l", "transformers", "CLIPVisionModelWithProjection"),
    "clip-vision-h": Network("clip-vision", "vit-h", "transformers", "CLIPVisionModelWithProjection"),
}
LATENTS = 16  # a side
PICTURE = 64


def inputs(network: Network) -> dict[str, np.ndarray]:
    """Seeded inputs, NHWC; the same in both frameworks."""
    rng, config = np.random.default_rng(0), network.values
    normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    if network.kind == "unet":
        given = {
            "latents": normal(1, LATENTS, LATENTS, config["in_channels"]),
            "timesteps": np.array([601], np.int32),
            "context": normal(1, 77, config["cross_attention_dim"]),
        }
        if config.get("addition_embed_type"):
            given |= {"pooled": normal(1, 1280), "time_ids": np.array([[768, 768, 0, 0, 768, 768]], np.float32)}
        return given
    if network.kind == "vae":
        side = PICTURE // 8
        return {
            "image": rng.uniform(-1, 1, (1, PICTURE, PICTURE, 3)).astype(np.float32),
            "latents": normal(1, side, side, config["latent_channels"]),
        }
    if network.kind == "clip-text":
        ids = rng.integers(1, 40000, (2, 77)).astype(np.int32)
        ids[:, 0], ids[0, 20:], ids[1, 60:] = 49406, 49407, 49407
        return {"ids": ids}
    return {"pixels": normal(1, config["image_size"], config["image_size"], 3)}
