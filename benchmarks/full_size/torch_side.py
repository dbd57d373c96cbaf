"""The originals, in a process of their own: random weights written in their own format, and what they compute."""

import argparse
import importlib
from pathlib import Path

import numpy as np
import torch

from benchmarks.full_size.networks import NETWORKS, Network, inputs


def build(network: Network, seed: int) -> torch.nn.Module:
    """The original with random weights; vectors (norms, biases) are moved off their ones and zeros."""
    torch.manual_seed(seed)
    library, values = importlib.import_module(network.library), network.values
    if network.library == "diffusers":
        model = getattr(library, network.cls).from_config(values)
    else:
        kind = "Text" if network.kind == "clip-text" else "Vision"
        values = {name: value for name, value in values.items() if name not in ("architectures", "model_type")}
        model = getattr(library, network.cls)(getattr(library, f"CLIP{kind}Config")(**values))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


def to_torch(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.transpose(0, 3, 1, 2) if array.ndim == 4 else array)


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    array = tensor.detach().float().numpy()
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


@torch.no_grad()
def run(network: Network, model: torch.nn.Module) -> dict[str, np.ndarray]:
    given = {name: to_torch(array) for name, array in inputs(network).items()}
    if network.kind == "unet":
        added = {"text_embeds": given["pooled"], "time_ids": given["time_ids"]} if "pooled" in given else None
        out = model(given["latents"], given["timesteps"], given["context"], added_cond_kwargs=added)
        return {"sample": to_numpy(out.sample)}
    if network.kind == "vae":
        posterior = model.encode(given["image"]).latent_dist
        decoded = model.decode(given["latents"]).sample
        return {"mean": to_numpy(posterior.mean), "decoded": to_numpy(decoded)}
    if network.kind == "clip-text":
        out = model(given["ids"].long(), output_hidden_states=True)
        return {"penultimate": to_numpy(out.hidden_states[-2]), "embeds": to_numpy(out.text_embeds)}
    out = model(given["pixels"], output_hidden_states=True)
    return {"penultimate": to_numpy(out.hidden_states[-2]), "embeds": to_numpy(out.image_embeds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--read", action="store_true", help="load the folder that is there instead of writing it")
    parser.add_argument("--out", type=Path, required=True, help=".npz of what it computes")
    arguments = parser.parse_args()
    network = NETWORKS[arguments.network]
    if arguments.read:
        cls = getattr(importlib.import_module(network.library), network.cls)
        model = cls.from_pretrained(arguments.folder).eval()
    else:
        model = build(network, seed=0)
        model.save_pretrained(arguments.folder, max_shard_size="20GB")
    np.savez(arguments.out, **run(network, model))


if __name__ == "__main__":
    main()
