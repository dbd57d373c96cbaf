"""A start for a small U-Net from which noise passes: its outermost skip is made a linear path from input to output.

What a velocity or noise prediction needs most is the input itself, times a gain. Conv_in's features reach the last
ResNet block by the outermost skip, but a narrow network takes long to bring them through the last GroupNorm and SiLU
undamaged: its white backgrounds stay speckled for thousands of steps (docs/tiny.md). Pairs of channels +z and -z make
SiLU linear, silu(x) - silu(-x) = x, and balance GroupNorm's mean. All other channels stay random, and all of it trains.
"""

from collections.abc import Mapping
from typing import Any

from ragdiff_jax.errors import UserError
from ragdiff_jax.models.unet_config import UNetConfig
from ragdiff_jax.training.objectives.convolutions import set_channels

GAIN = 0.5  # between the gains that the two ends of the schedule ask for


def noise_start(params: Mapping[str, Any], config: UNetConfig) -> dict[str, Any]:
    """The boxed parameters of a fresh `UNet` with the linear path set.

    Raises UserError for an architecture that the construction doesn't fit.
    """
    width, channels = config.block_out_channels[0], config.out_channels
    even = (width // config.norm_num_groups) % 2 == 0
    if not even or width < 2 * channels or config.in_channels < channels:
        raise UserError(
            f"noise_start needs twice as many first channels as latents, in groups of an even number, not {width} "
            f"channels in {config.norm_num_groups} groups for {config.in_channels} -> {channels} latents"
        )
    pairs = {2 * c + place: [(c, sign)] for c in range(channels) for place, sign in enumerate((1.0, -1.0))}
    skip = {place: [(width + place, 1.0)] for place in pairs}  # the skip stands behind the block's own input
    out = set_channels(params, "conv_in", pairs)
    last = f"up_blocks_{len(config.block_out_channels) - 1}/resnets_{config.layers_per_block}"
    out = set_channels(out, f"{last}/conv_shortcut", skip)
    return set_channels(out, "conv_out", {c: [(2 * c, GAIN), (2 * c + 1, -GAIN)] for c in range(channels)})
