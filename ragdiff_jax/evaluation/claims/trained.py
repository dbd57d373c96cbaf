"""What trained variants do: flat-lays of held-out garments, other data and other light; logos through autoencoders."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from ragdiff_jax.data.images import square
from ragdiff_jax.data.pixels import to_float, to_uint8
from ragdiff_jax.data.synth import render_flat, synth_spec
from ragdiff_jax.data.synth.looks import PLACED
from ragdiff_jax.evaluation.alignment import Box
from ragdiff_jax.evaluation.claims.generating import Arm, generation
from ragdiff_jax.evaluation.claims.store import Measured
from ragdiff_jax.evaluation.claims.variants import model_of
from ragdiff_jax.evaluation.claims.world import HELD_OUT, World
from ragdiff_jax.evaluation.logo import edge_correlation, psnr
from ragdiff_jax.models.vae import AutoencoderKL, VAEConfig
from ragdiff_jax.weights.folder import load_part, read_config

BATCH = 32


def variant_pictures(world: World, seed: int, name: str, arm: Arm) -> Measured:
    """`generation` by a variant. Raises `NotRun` as `model_of` does."""
    return generation(world, seed, arm, folder=model_of(world, name, seed))


def logos(world: World, seed: int, name: str) -> Measured:
    """Prints that sit in one place, through a variant's autoencoder: `psnr` (dB) and `edges` inside the print's box."""
    folder = model_of(world, name, seed) / "vae"
    pictures, boxes = logo_boxes(world.budget.photos // 2, world.image_size)
    again = through_autoencoder(folder, pictures)
    columns = {
        "psnr": np.array([psnr(*each) for each in zip(pictures, again, boxes, strict=True)]),
        "edges": np.array([edge_correlation(*each) for each in zip(pictures, again, boxes, strict=True)]),
    }
    groups = np.array([str(number) for number in range(len(boxes))])
    sheet = np.concatenate([np.concatenate(list(some[:8]), axis=1) for some in (pictures, again)])
    return Measured(columns=columns, groups=groups, facts={"logos": len(boxes)}, sheet=sheet)


def logo_boxes(count: int, size: int, seed: int = HELD_OUT) -> tuple[UInt8[np.ndarray, "n s s 3"], list[Box]]:
    """Flat-lays with a print in one place, and where it is: where the plain garment differs."""
    pictures, boxes, index = [], [], 0
    while len(pictures) < count:
        spec = synth_spec(index, seed)
        index += 1
        if spec.look.print not in PLACED:
            continue
        plain = dataclasses.replace(spec, look=dataclasses.replace(spec.look, print="Solid Color"))
        with_print, without = (square(render_flat(one, 2 * size)[0], size) for one in (spec, plain))
        rows, columns = np.nonzero(np.abs(with_print.astype(int) - without).max(2) > 24)
        if len(rows) and min(np.ptp(rows), np.ptp(columns)) >= 6:
            pictures.append(with_print)
            boxes.append((int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1))
    return np.stack(pictures), boxes


def through_autoencoder(folder, pictures: UInt8[np.ndarray, "n s s 3"]) -> UInt8[np.ndarray, "n s s 3"]:
    """Pictures through the autoencoder of a part's folder, by the posterior's mean."""
    network, side = AutoencoderKL(VAEConfig.from_dict(read_config(folder))), pictures.shape[1]
    blank = jnp.zeros((1, side, side, 3))
    params = load_part(folder, jax.eval_shape(network.init, jax.random.key(0), blank)["params"])

    @jax.jit
    def run(params, images):
        mean, _ = network.apply({"params": params}, to_float(images), method="encode")
        return to_uint8(network.apply({"params": params}, mean, method="decode"))

    found = [np.asarray(run(params, pictures[at : at + BATCH])) for at in range(0, len(pictures), BATCH)]
    return np.concatenate(found)
