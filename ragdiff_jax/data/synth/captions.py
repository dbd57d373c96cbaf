"""One sentence about a garment, from its attributes and colours."""

from collections.abc import Mapping

from ragdiff_jax.data.synth.labels import colour_names, spec_attributes
from ragdiff_jax.data.synth.shape import GarmentSpec
from ragdiff_jax.data.wording import sentence


def caption(spec: GarmentSpec, attributes: Mapping[str, str] | None = None) -> str:
    """E.g. "a photo of a long sleeve striped hoodie in navy and white, regular fit, hooded collar".

    `attributes` are those seen in a photo (`render_photo`); what is missing there isn't mentioned.
    """
    seen = spec_attributes(spec) if attributes is None else attributes
    return sentence(seen.get("Category", spec.category), seen, colour_names(spec.look))
