"""One sentence about a garment, from its attributes and colours."""

from collections.abc import Mapping

from ragdiff_jax.data.synth.labels import colour_names, spec_attributes
from ragdiff_jax.data.synth.shape import GarmentSpec

_SLEEVES = {
    "Sleeveless": "sleeveless",
    "Short": "short sleeve",
    "Mid": "mid sleeve",
    "Long": "long sleeve",
    "Extra Long": "extra long sleeve",
}
_PRINTS = {
    "Solid Color": "plain",
    "Striped": "striped",
    "Plaid": "plaid",
    "Polka Dot": "polka dot",
    "Floral": "floral",
    "Color Block": "color block",
    "Logo": "logo",
    "Text": "text print",
    "Camouflage": "camouflage",
    "Geometric": "geometric",
    "Star": "star print",
    "Artistic": "graphic print",
    "Tie-dye": "tie-dye",
    "Heart": "heart print",
    "Animal": "animal print",
    "Linear": "fine line",
    "Cartoon": "cartoon",
    "Nature Scene": "landscape print",
    "Objects": "novelty print",
    "Mixed": "mixed print",
    "Paisley": "paisley",
}
_CRAFTS = {
    "Layered": "tiered",
    "Pleated": "pleated",
    "Quilted": "quilted",
    "Ruffle": "ruffles",
    "Cutout": "cut-outs",
    "Slit": "slit",
    "Tied": "tied",
    "Edge Decoration": "decorated edge",
    "Washed": "washed",
}
_COLLARS = {
    "Round": "round neck",
    "V-neck": "v-neck",
    "Square": "square neck",
    "Hooded": "hooded collar",
    "Shirt": "shirt collar",
    "Polo": "polo collar",
    "Stand-up": "stand-up collar",
    "Suit": "suit collar",
    "Baseball": "baseball collar",
    "Notched": "notched collar",
    "Rounded": "rounded collar",
    "Ruffled": "ruffled collar",
    "Naval": "sailor collar",
    "Strapless": "strapless",
    "One-shoulder": "one shoulder",
    "Off-shoulder": "off shoulder",
    "Neckline": "wide neckline",
}


def caption(spec: GarmentSpec, attributes: Mapping[str, str] | None = None) -> str:
    """E.g. "a photo of a long sleeve striped hoodie in navy and white, regular fit, hooded collar".

    `attributes` are those seen in a photo (`render_photo`); what is missing there isn't mentioned.
    """
    seen = spec_attributes(spec) if attributes is None else attributes
    words = [_SLEEVES.get(seen.get("Sleeve Length", ""), ""), _PRINTS.get(seen.get("Print", ""), "")]
    words.append(seen.get("Category", spec.category).lower())
    noun = " ".join(word for word in words if word)
    pair = spec.category in ("Trousers", "Shorts")
    article = "a pair of" if pair else "an" if noun[0] in "aeiou" else "a"
    parts = [f"a photo of {article} {noun} in {' and '.join(colour_names(spec.look))}"]
    if seen.get("Fit"):
        parts.append(f"{seen['Fit'].lower()} fit")
    if seen.get("Collar") in _COLLARS:
        parts.append(_COLLARS[seen["Collar"]])
    if seen.get("Length") not in (None, "Uncertain", "Medium"):
        parts.append(f"{seen['Length'].lower()} length")
    if seen.get("Fabric"):
        parts.append(seen["Fabric"].lower())
    if seen.get("Surface Texture") in _CRAFTS:
        parts.append(_CRAFTS[seen["Surface Texture"]])
    if seen.get("Top Open") == "Yes":
        parts.append("open front")
    if seen.get("With Inner Wear") == "Yes":
        parts.append("with inner wear")
    if seen.get("Sleeves Rolled Up") == "Yes":
        parts.append("sleeves rolled up")
    if seen.get("Top Tuck In") == "Yes":
        parts.append("tucked in")
    return ", ".join(parts)
