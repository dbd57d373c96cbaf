"""A start for a small autoencoder from which hue passes: its residual path is made a linear one for the three colours.

With residual branches at zero, what is left of AutoencoderKL is a chain of convolutions, and one GroupNorm and SiLU at
each end. Red, green and blue are averaged down into the first three latents and spread up again; a pair of channels
+x and -x makes SiLU linear (silu(x) - silu(-x) = x), and a pair of large constants keeps GroupNorm's scale still. All
other channels stay random. Without this start the second axis of hue took thousands of steps to appear (docs/tiny.md).
"""

from collections.abc import Mapping
from typing import Any

from ragdiff_jax.errors import UserError
from ragdiff_jax.models.vae import VAEConfig
from ragdiff_jax.training.objectives.convolutions import set_channels

GAIN = 2.0  # latents of unit size from pixels in [-1, 1]
CONSTANT = 8.0
RED_GREEN_BLUE = range(3)
STILL = 3  # the channel that carries the constant


def colour_start(params: Mapping[str, Any], config: VAEConfig) -> dict[str, Any]:
    """The boxed parameters of a fresh `AutoencoderKL` with the linear colour path set.

    Raises UserError for an architecture that the construction doesn't fit.
    """
    widths, groups = config.block_out_channels, config.norm_num_groups
    fits = len(set(widths)) == len(widths) and groups * 4 == widths[0] >= 16 and widths[-1] >= 8 * groups
    if not fits or not (config.use_quant_conv and config.use_post_quant_conv) or config.latent_channels < 3:
        raise UserError(f"colour_start needs growing widths with groups of 4 channels at the first, not {widths}")
    encoder, decoder = params["encoder"], params["decoder"]
    keep = {channel: [(channel, 1.0)] for channel in (*RED_GREEN_BLUE, STILL)}
    signs = {**keep, **{4 + channel: [(channel, -1.0)] for channel in (*RED_GREEN_BLUE, STILL)}}

    levels = len(widths)
    encoder = set_channels(encoder, "conv_in", {c: [(c, 1.0)] for c in RED_GREEN_BLUE}, constants={STILL: CONSTANT})
    for level in range(levels):
        block = f"down_blocks_{level}"
        if level:
            roles = signs if level == levels - 1 else keep
            encoder = set_channels(encoder, f"{block}/resnets_0/conv_shortcut", roles)
        if level < levels - 1:
            encoder = set_channels(encoder, f"{block}/downsamplers_0/conv", keep, taps=((0, 0), (0, 1), (1, 0), (1, 1)))
    # What GroupNorm divides by: the pair of constants among the channels of the first group.
    spread = CONSTANT * (2 * groups / widths[-1]) ** 0.5
    latents = {c: [(c, GAIN * spread), (4 + c, -GAIN * spread)] for c in RED_GREEN_BLUE}
    encoder = set_channels(encoder, "conv_out", latents)

    decoder = set_channels(decoder, "conv_in", {c: [(c, 1.0)] for c in RED_GREEN_BLUE}, constants={STILL: CONSTANT})
    for level in range(levels):
        block = f"up_blocks_{level}"
        if level:
            pairs = {
                4 * c + place: [(source, sign)]
                for c in RED_GREEN_BLUE
                for place, (source, sign) in enumerate(((c, 1.0), (c, -1.0), (STILL, 1.0), (STILL, -1.0)))
            }
            decoder = set_channels(decoder, f"{block}/resnets_0/conv_shortcut", pairs if level == levels - 1 else keep)
        if level < levels - 1:
            decoder = set_channels(decoder, f"{block}/upsamplers_0/conv", keep)
    spread = CONSTANT * 0.5**0.5
    colours = {c: [(4 * c, spread / GAIN), (4 * c + 1, -spread / GAIN)] for c in RED_GREEN_BLUE}
    decoder = set_channels(decoder, "conv_out", colours)

    out = {**params, "encoder": encoder, "decoder": decoder}
    same = {channel: [(channel, 1.0)] for channel in range(config.latent_channels)}
    out = set_channels(out, "post_quant_conv", same)
    return set_channels(out, "quant_conv", {**same, **{c + config.latent_channels: [] for c in same}})
