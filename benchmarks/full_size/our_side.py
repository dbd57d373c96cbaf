"""Ours, in a process of its own: load a part folder, say what that took, and what it computes. One JSON line.

With --most it ends in one more line, and 1, where an output is further off than that.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.full_size.disk import forget
from benchmarks.full_size.networks import NETWORKS, Network, inputs
from ragdiff_jax.models.clip_text import CLIPTextModel
from ragdiff_jax.models.clip_vision import CLIPVisionModel
from ragdiff_jax.models.unet import UNet
from ragdiff_jax.models.vae import AutoencoderKL
from ragdiff_jax.weights.folder import load_part, read_config
from ragdiff_jax.weights.kinds import KINDS

CLASSES = {"unet": UNet, "vae": AutoencoderKL, "clip-text": CLIPTextModel, "clip-vision": CLIPVisionModel}


def memory(field: str) -> float:
    """Of this process, in GB: VmHWM is its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * 1024 / 1e9


def compute(network: Network, config, params, dtype) -> dict[str, jax.Array]:
    model = CLASSES[network.kind](config, dtype=dtype)
    given = {name: jnp.asarray(array) for name, array in inputs(network).items()}

    @jax.jit
    def run(params, given):
        variables = {"params": params}
        if network.kind == "unet":
            return {"sample": model.apply(variables, **given)}
        if network.kind == "vae":
            mean, _ = model.apply(variables, given["image"], method="encode")
            return {"mean": mean, "decoded": model.apply(variables, given["latents"], method="decode")}
        out = model.apply(variables, next(iter(given.values())))
        embeds = out.text_embeds if network.kind == "clip-text" else out.image_embeds
        return {"penultimate": out.penultimate, "embeds": embeds}

    return run(params, given)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--reference", type=Path, required=True, help=".npz of the original's results")
    parser.add_argument("--most", type=float, default=float("inf"), help="error allowed (default: any)")
    arguments = parser.parse_args()
    network, kind = NETWORKS[arguments.network], KINDS[NETWORKS[arguments.network].kind]
    config = kind.read_config(read_config(arguments.folder), str(arguments.folder))
    abstract = kind.abstract(config)
    jax.block_until_ready(jnp.zeros(()))
    seconds = []
    for _ in range(2):
        params = None  # the first one's memory is free again
        forget(arguments.folder)
        started = time.perf_counter()
        params = jax.block_until_ready(load_part(arguments.folder, abstract, dtype=arguments.dtype))
        seconds.append(time.perf_counter() - started)
    peak = memory("VmHWM")
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params)) / 1e9
    ours = {name: np.asarray(x, np.float32) for name, x in compute(network, config, params, arguments.dtype).items()}
    with np.load(arguments.reference) as theirs:
        errors = {
            name: float(np.linalg.norm(ours[name] - theirs[name]) / np.linalg.norm(theirs[name])) for name in ours
        }
    line = {"gb": size, "load_s": seconds[0], "again_s": seconds[1], "peak_gb": peak, "errors": errors}
    print(json.dumps(line))
    if far := {name: error for name, error in errors.items() if not error <= arguments.most}:  # NaN too
        told = ", ".join(f"{name} by {error:.2g}" for name, error in far.items())
        sys.exit(f"{arguments.folder}: not what the original computes: {told}, allowed {arguments.most:g}")


if __name__ == "__main__":
    main()
