"""Stage `autoencoder`: reconstruction of photos and flat-lays through AutoencoderKL.

A sample is the photo or the flat-lay of a pair, half each, and a random crop of it: convolutions don't care where they
are, and a quarter of the pixels is a quarter of the work. The latents' mean and variance are measured and mended at
export.
"""

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ragdiff_jax.data.pixels import to_float, to_uint8
from ragdiff_jax.errors import UserError
from ragdiff_jax.models.vae import AutoencoderKL, VAEConfig, kl_divergence, sample_latents
from ragdiff_jax.parallel import on_host
from ragdiff_jax.training.objectives.colour_start import colour_start
from ragdiff_jax.training.objectives.common import PairObjective, load_parts, sheet
from ragdiff_jax.weights.folder import ModelFile, save_part, write_model_json


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoencoderObjective(PairObjective):
    """Attributes:
    config: the autoencoder.
    crop: side of the training crops in pixels; 0 takes whole pictures.
    kl_weight: of the KL divergence, averaged over the latent's numbers.
    edge_weight: of the L1 distance of horizontal and vertical differences, which keeps seams and prints sharp.
    colour_weight: of the L1 distance after averaging over the pixels of each latent. A narrow latent otherwise spends
      itself on edges and gives up hue first (a green jacket came back blue).
    balance: how far the written autoencoder's latent channels are brought to one size: each is centred on its mean
      over the flat-lays and divided by its standard deviation to this power (0: centred only; 1: all of unit
      variance). The quant convs take it up, so that no picture changes. None leaves the channels as they are.
    colour_start: begin with a linear path for the three colours (`objectives/colour_start.py`).
    init_from: a folder with a `vae` to start from; its architecture and scale go before `config`.
    decoder_only: with `init_from`, trains what is behind the latents alone and writes the same scale: sharper pictures
      for every model that was trained on these latents.
    latent_noise: of `decoder_only`, standard deviation of the noise on the latents, as a share of theirs: a denoiser's
      are never quite an encoder's.
    """

    config: VAEConfig
    crop: int = 0
    kl_weight: float = 1e-4
    edge_weight: float = 1.0
    colour_weight: float = 0.0
    colour_start: bool = False
    balance: float | None = None
    init_from: str = ""
    decoder_only: bool = False
    latent_noise: float = 0.0
    trainable: str = "^vae/"
    reads: ClassVar[tuple[str, ...]] = ("photo", "flat", "row")

    def __post_init__(self):
        if not self.decoder_only:
            return
        if not self.init_from or self.balance is not None:
            raise UserError("decoder_only=True keeps the latents as they are: it needs init_from, and balance=None")
        object.__setattr__(self, "trainable", r"^vae/(decoder|post_quant_conv)/")

    @property
    def network(self) -> AutoencoderKL:
        return AutoencoderKL(self.config)

    def init(self, key):
        side = 2 * self.config.factor
        params = dict(self.network.init(key, jnp.zeros((1, side, side, 3)))["params"])
        if self.colour_start:
            params = colour_start(params, self.config)
        if self.config.use_quant_conv:
            # The posterior starts narrow: at unit variance its noise hides every colour for hundreds of steps.
            bias = params["quant_conv"]["bias"]
            narrow = bias.replace_boxed(bias.unbox().at[self.config.latent_channels :].set(-6.0))
            params["quant_conv"] = params["quant_conv"] | {"bias": narrow}
        return {"vae": params}

    def restore_parts(self, params):
        return load_parts(params, {"vae": f"{self.init_from}/vae"}) if self.init_from else params

    def _reconstruct(self, params, images, key):
        variables = {"params": params["vae"]}
        mean, logvar = self.network.apply(variables, images, method="encode")
        if key is None:
            latents = mean
        elif self.decoder_only:
            spread = self.latent_noise / self.config.scaling_factor
            latents = jax.lax.stop_gradient(mean) + spread * jax.random.normal(key, mean.shape, mean.dtype)
        else:
            latents = sample_latents(mean, logvar, key)
        return self.network.apply(variables, latents, method="decode"), mean, logvar

    def loss(self, params, constants, batch, key):
        pick, crop, noise = jax.random.split(key, 3)
        b, h, w, _ = batch["photo"].shape
        photo = jax.random.bernoulli(pick, 0.5, (b, 1, 1, 1))
        images = to_float(jnp.where(photo, batch["photo"], batch["flat"]))
        if self.crop:
            side = self.crop
            corners = jax.random.randint(crop, (b, 2), 0, jnp.array([h - side + 1, w - side + 1]))
            images = jax.vmap(lambda image, at: jax.lax.dynamic_slice(image, (at[0], at[1], 0), (side, side, 3)))(
                images, corners
            )
        output, mean, logvar = self._reconstruct(params, images, noise)
        error = output - images
        rows = jnp.abs(error).mean((1, 2, 3)) + jnp.square(error).mean((1, 2, 3))
        edges = sum(jnp.abs(jnp.diff(error, axis=axis)).mean((1, 2, 3)) for axis in (1, 2))
        side = self.config.factor
        coarse = error.reshape(b, error.shape[1] // side, side, error.shape[2] // side, side, 3).mean((2, 4))
        colour = jnp.abs(coarse).mean((1, 2, 3))
        kl = kl_divergence(mean, logvar) / mean[0].size
        metrics = {"l1": jnp.abs(error).mean(), "colour": colour.mean(), "kl": kl.mean(), "latent_std": mean.std()}
        return rows + self.edge_weight * edges + self.colour_weight * colour + self.kl_weight * kl, metrics

    def _run(self):
        return self.program("reconstruct", lambda params, x: self._reconstruct(params, to_float(x), None)[0])

    def sample(self, params, constants, key):
        batch = self.example_batch()
        run = self._run()
        columns = []
        for name in ("photo", "flat"):
            columns += [batch[name], to_uint8(run(params, batch[name]))]
        return {"reconstruction": sheet(*columns)}

    def validation(self, params, constants, key):
        batch = self.example_batch()
        run = self._run()
        out = {}
        for name in ("photo", "flat"):
            error = jnp.square(run(params, batch[name]) - to_float(batch[name])).mean()
            out[f"psnr_{name}"] = float(10 * jnp.log10(4.0 / error))
        return out

    def export(self, params, directory):
        if self.decoder_only:
            self._write(self.config, params["vae"], directory)
            return
        encode = jax.jit(functools.partial(self.network.apply, method="encode"))
        latents = {"photo": [], "flat": []}
        for start in range(0, min(256, len(self.pairs)), 32):
            batch = self.pairs.batch(np.arange(start, min(start + 32, len(self.pairs))), self.reads)
            for name, of_name in latents.items():
                of_name.append(np.float32(on_host(encode({"params": params["vae"]}, to_float(batch[name]))[0])))
        vae, scale = params["vae"], 1.0 / np.mean([x.std() for x in (*latents["photo"], *latents["flat"])])
        if self.balance is not None:
            flat = np.concatenate(latents["flat"])
            spread = flat.std((0, 1, 2))
            vae = shift_latents(vae, self.config, flat.mean((0, 1, 2)), spread**self.balance)
            scale = 1.0 / np.sqrt(np.mean(spread ** (2 - 2 * self.balance)))
        self._write(dataclasses.replace(self.config, scaling_factor=float(scale)), vae, directory)

    @staticmethod
    def _write(config, vae, directory):
        save_part(directory / "vae", config.to_dict(), vae)
        write_model_json(directory, ModelFile(system="autoencoder", parts={"vae": "AutoencoderKL"}))


def shift_latents(params, config: VAEConfig, centre: Float[Array, "c"], size: Float[Array, "c"]) -> dict[str, Any]:
    """The autoencoder whose latents are (latents - centre) / size, and which decodes them to the same pictures.

    Raises UserError without both quant convs, which take the change up.
    """
    if not (config.use_quant_conv and config.use_post_quant_conv):
        raise UserError("the latents of an autoencoder without quant convs can't be balanced; leave balance out")
    quant, post = params["quant_conv"], params["post_quant_conv"]
    # The second half is a log variance: it moves, and isn't scaled.
    scale = jnp.concatenate([size, jnp.ones_like(size)])
    move = jnp.concatenate([centre, 2 * jnp.log(size)])
    return {
        **params,
        "quant_conv": {"kernel": quant["kernel"] / scale, "bias": (quant["bias"] - move) / scale},
        "post_quant_conv": {
            "kernel": post["kernel"] * size[:, None],
            "bias": post["bias"] + centre @ post["kernel"][0, 0],
        },
    }
