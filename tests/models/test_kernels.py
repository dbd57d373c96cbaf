"""What runs on cards alone, or computes again: held here against the plain way."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from quick import quick_jit

from ragdiff_jax.models import attention
from ragdiff_jax.models.attention import reference_attention
from ragdiff_jax.models.unet import UNet
from ragdiff_jax.models.unet_config import UNetConfig


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def test_the_fused_kernels_attention_with_reference_is_the_plain_one(monkeypatch):
    plain = jax.nn.dot_product_attention

    def fused(*arrays, implementation, **named):
        return plain(*arrays, implementation="xla", **named)

    monkeypatch.setattr(attention.jax.nn, "dot_product_attention", fused)
    arrays = [2 * normal(seed, 3, length, 2, 8) for seed, length in enumerate((6, 6, 6, 5, 5))]
    gate = jnp.array([0.0, 1.0, 0.0])
    ours, theirs = (reference_attention(*arrays, gate, implementation=name) for name in ("xla", "cudnn"))
    np.testing.assert_allclose(theirs, ours, atol=1e-5)


def test_what_is_computed_again_has_the_same_gradient():
    config = UNetConfig(
        block_out_channels=(8,),
        layers_per_block=1,
        transformer_layers=(1,),
        attention_heads=(2,),
        cross_attention_dim=12,
        use_linear_projection=True,
        norm_num_groups=4,
        text_embed_dim=0,
        down_attention=(True,),
        up_attention=(True,),
    )
    inputs = normal(0, 2, 4, 4, 4), jnp.array([3, 500]), normal(1, 2, 3, 12)
    shapes = nn.meta.unbox(jax.eval_shape(UNet(config).init, jax.random.key(0), *inputs)["params"])
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: np.float32(rng.normal(size=leaf.shape) * 0.3), shapes)

    def slopes(remat):
        def loss(params):
            return jnp.sin(UNet(config, remat=remat).apply({"params": params}, *inputs)).sum()

        return jax.value_and_grad(loss)

    again = {kind: str(jax.make_jaxpr(slopes(kind))(params)).count("remat") for kind in ("none", "block", "dots")}
    assert again["block"] > again["none"] < again["dots"]
    plain, found = (quick_jit(slopes(kind))(params) for kind in ("none", "dots"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, plain)
