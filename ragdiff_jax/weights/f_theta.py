"""F_theta's published files (`inversion_adapter_*.pth`) as our tree (`models/f_theta.py`).

They differ in one name: `encoder_layers.N` is `encoder.layers.N` here, a stack like CLIP's own. The MLP's activations
and dropout have no tensors, so that its layers are 0, 3 and 6.
"""

from ragdiff_jax.weights.sources import Source, View, renamed

# (theirs, ours): beginnings of tensor names.
PREFIXES = (("encoder_layers.", "encoder.layers."), ("post_layernorm.", "post_layernorm."), ("layers.", "layers."))


def f_theta_view(source: Source) -> View:
    """The published names as ours; a name that fits no line of the table stays, to be reported."""
    names = {}
    for name in source.shapes:
        pair = next((pair for pair in PREFIXES if name.startswith(pair[0])), ("", ""))
        names[pair[1] + name.removeprefix(pair[0])] = name
    return renamed(source, names)
