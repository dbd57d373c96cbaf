"""The rule between torch's names and ours."""

import pytest

from ragdiff_jax.errors import UserError
from ragdiff_jax.weights.names import plan, resolve


def test_names_and_layouts():
    plans = plan(
        {
            ("down_blocks_1", "resnets_0", "conv1", "kernel"): (3, 3, 8, 16),
            ("time_embedding", "linear_1", "kernel"): (4, 8),
            ("layers_0_1_3", "kernel"): (8, 4),
            ("embeddings", "position_embedding", "embedding"): (77, 8),
            ("norm1", "scale"): (8,),
            ("attentions_0", "to_out_0", "bias"): (8,),
            ("latents",): (1, 2, 3),
        }
    )
    assert [(p.names, p.disk_shape) for p in plans] == [
        (("down_blocks.1.resnets.0.conv1.weight",), (16, 8, 3, 3)),
        (("time_embedding.linear_1.weight",), (8, 4)),
        (("layers.0.1.3.weight",), (4, 8)),
        (("embeddings.position_embedding.weight",), (77, 8)),
        (("norm1.weight",), (8,)),
        (("attentions.0.to_out.0.bias",), (8,)),
        (("latents",), (1, 2, 3)),
    ]


def test_stacks_and_the_reference_nets_last_block():
    stack = ("mid_block", "attentions_0", "transformer_blocks", "ff", "net_0", "proj", "kernel")
    last = ("mid_block", "attentions_0", "transformer_blocks_last", "attn1", "to_k", "kernel")
    one, two = plan({stack: (2, 4, 8), last: (4, 4)})
    prefix = "mid_block.attentions.0.transformer_blocks"
    assert one.names == (f"{prefix}.0.ff.net.0.proj.weight", f"{prefix}.1.ff.net.0.proj.weight")
    assert one.disk_shape == (8, 4)
    assert two.names == (f"{prefix}.2.attn1.to_k.weight",)
    # Depth 1: nothing but the last block.
    assert plan({last: (4, 4)})[0].names == (f"{prefix}.0.attn1.to_k.weight",)


def test_one_error_lists_every_misfit():
    wanted = {"a.weight": (2, 3), "b.weight": (4,), "c.bias": (5,)}
    found = {"a.weight": (3, 2), "x.weight": (1,), "y.weight": (1,), "embeddings.position_ids": (1, 77)}
    with pytest.raises(UserError) as error:
        resolve(wanted, found, "unet/")
    text = str(error.value)
    assert "\n" not in text and text.startswith("unet/")
    for part in ("missing (2): b.weight, c.bias", "not expected (2): x.weight, y.weight", "a.weight [3, 2]"):
        assert part in text
    assert "position_ids" not in text
    with pytest.raises(UserError) as error:
        resolve(wanted, found, "unet/", allow_surplus=True)
    assert "x.weight" not in str(error.value)


def test_clip_names_without_prefix_are_found():
    wanted = {"text_model.final_layer_norm.bias": (4,)}
    found = {"final_layer_norm.bias": (4,)}
    assert resolve(wanted, found, "x") == {"text_model.final_layer_norm.bias": "final_layer_norm.bias"}
