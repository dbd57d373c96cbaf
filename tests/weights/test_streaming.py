"""What the host holds while weights come in: their target, and one tensor more."""

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ragdiff_jax import weights
from ragdiff_jax.models.clip_text import CLIPTextConfig
from ragdiff_jax.weights.importing import import_weights
from ragdiff_jax.weights.kinds import KINDS
from ragdiff_jax.weights.safetensors_io import Tensors
from ragdiff_jax.weights.streaming import READERS

CONFIG = CLIPTextConfig(
    hidden_size=256,
    intermediate_size=1024,
    num_hidden_layers=8,
    num_attention_heads=4,
    vocab_size=1024,
    max_position_embeddings=8,
    with_projection=False,
)
LARGEST = 4 * 1024 * 256  # bytes of the largest tensor in fp32: the table, and each layer's fc1 and fc2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A part of 26 MB in tensors of up to 1 MB."""
    path = tmp_path_factory.mktemp("text")
    rng = np.random.default_rng(0)
    abstract = jax.tree.map(lambda x: x, weights_abstract())
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), abstract)
    weights.save_part(path, CONFIG.to_dict(), params)
    return path


def weights_abstract():
    import flax.linen as nn

    return nn.meta.unbox(KINDS["clip-text"].abstract(CONFIG))


def peak(action):
    """(result, peak bytes that numpy, Python and safetensors held while it ran)."""
    tracemalloc.start()
    try:
        result = action()
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_an_import_holds_one_tensor(folder, tmp_path):
    import_weights(folder, "clip-text", tmp_path / "warm")  # what is traced once stays
    done, held = peak(lambda: import_weights(folder, "clip-text", tmp_path / "half", dtype="bfloat16"))
    assert done.parameters * 4 > 25 * LARGEST
    assert held < 2.5 * LARGEST  # the tensor, its copy in bf16, and what Python keeps of names


def test_loading_holds_the_arrays_in_their_own_dtype_and_a_tensor_a_reader(folder):
    abstract = weights_abstract()
    weights.load_part(folder, abstract, dtype=jnp.bfloat16)
    params, held = peak(lambda: weights.load_part(folder, abstract, dtype=jnp.bfloat16))
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    assert held < size + READERS * 2.5 * LARGEST  # each reader's tensor as it was read


def test_a_shard_is_read_as_a_slice_of_each_tensor(folder, monkeypatch):
    """With eight devices that share a stack, no buffer is larger than a device's share of one layer."""
    sizes = []
    read = Tensors.read

    def spy(self, name, index):
        out = read(self, name, index)
        sizes.append(out.nbytes)
        return out

    monkeypatch.setattr(Tensors, "read", spy)
    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))

    def place(leaf):
        axis = max(range(leaf.ndim), key=lambda i: leaf.shape[i] if i or leaf.ndim == 1 else 0)
        return NamedSharding(mesh, PartitionSpec(*("fsdp" if i == axis else None for i in range(leaf.ndim))))

    abstract = weights_abstract()
    params = weights.load_part(folder, abstract, shardings=jax.tree.map(place, abstract))
    assert max(sizes) == LARGEST // 8
    assert sum(sizes) == sum(leaf.nbytes for leaf in jax.tree.leaves(params))  # every byte once
