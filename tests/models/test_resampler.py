"""The Resampler against IP-Adapter-plus' computation in torch, through a file with its names."""

import jax
import numpy as np
import torch
from safetensors.torch import save_file

from ragdiff_jax import weights
from ragdiff_jax.models.resampler import Resampler

torch.set_num_threads(1)

DIM, DEPTH, HEADS, DIM_HEAD, QUERIES, WIDTH, OUT = 16, 2, 3, 8, 4, 10, 12


def tensors():
    """Random tensors under the names of a published checkpoint."""
    inner = HEADS * DIM_HEAD
    shapes = {
        "latents": (1, QUERIES, DIM),
        "proj_in.weight": (DIM, WIDTH),
        "proj_in.bias": (DIM,),
        "proj_out.weight": (OUT, DIM),
        "proj_out.bias": (OUT,),
        "norm_out.weight": (OUT,),
        "norm_out.bias": (OUT,),
    }
    for n in range(DEPTH):
        for norm in (f"layers.{n}.0.norm1", f"layers.{n}.0.norm2", f"layers.{n}.1.0"):
            shapes |= {f"{norm}.weight": (DIM,), f"{norm}.bias": (DIM,)}
        shapes |= {
            f"layers.{n}.0.to_q.weight": (inner, DIM),
            f"layers.{n}.0.to_kv.weight": (2 * inner, DIM),
            f"layers.{n}.0.to_out.weight": (DIM, inner),
            f"layers.{n}.1.1.weight": (4 * DIM, DIM),
            f"layers.{n}.1.3.weight": (DIM, 4 * DIM),
        }
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()}


def reference(w, x):
    """Latents attend to (features, latents), both normed; then a bias-free GELU feed-forward; residual."""

    def norm(name, value):
        weight, bias = w[f"{name}.weight"], w[f"{name}.bias"]
        return torch.nn.functional.layer_norm(value, weight.shape, weight, bias)

    def split(value):
        return value.unflatten(-1, (HEADS, DIM_HEAD)).transpose(1, 2)

    x = x @ w["proj_in.weight"].T + w["proj_in.bias"]
    latents = w["latents"].expand(x.shape[0], -1, -1)
    for n in range(DEPTH):
        features = norm(f"layers.{n}.0.norm1", x)
        queries = norm(f"layers.{n}.0.norm2", latents)
        key, value = (torch.cat([features, queries], 1) @ w[f"layers.{n}.0.to_kv.weight"].T).chunk(2, -1)
        query = split(queries @ w[f"layers.{n}.0.to_q.weight"].T) * DIM_HEAD**-0.5
        attention = torch.softmax(query @ split(key).transpose(-1, -2), -1) @ split(value)
        latents = latents + attention.transpose(1, 2).flatten(2) @ w[f"layers.{n}.0.to_out.weight"].T
        hidden = torch.nn.functional.gelu(norm(f"layers.{n}.1.0", latents) @ w[f"layers.{n}.1.1.weight"].T)
        latents = latents + hidden @ w[f"layers.{n}.1.3.weight"].T
    return norm("norm_out", latents @ w["proj_out.weight"].T + w["proj_out.bias"])


def test_published_checkpoint_layout_and_computation(tmp_path):
    w = tensors()
    save_file(w, tmp_path / "model.safetensors")
    model = Resampler(DIM, DEPTH, HEADS, DIM_HEAD, QUERIES, OUT)
    x = jax.random.normal(jax.random.key(0), (3, 7, WIDTH))
    abstract = jax.eval_shape(lambda key: model.init(key, x)["params"], jax.random.key(0))
    params = weights.load_part(tmp_path, abstract)
    ours = jax.jit(model.apply)({"params": params}, x)
    theirs = reference(w, torch.from_numpy(np.array(x))).numpy()
    assert ours.shape == (3, QUERIES, OUT)
    assert np.abs(ours - theirs).max() / np.abs(theirs).max() <= 1e-5
    assert len(w) == 7 + 11 * DEPTH  # 51 at the published depth of 4
