"""How a garment is said in one sentence: the captions of the generated garments, and the prompts that ask CLIP."""

from collections.abc import Mapping, Sequence

BOTTOMS = ("Trousers", "Shorts")
# What a bottom and a skirt don't have.
NOT_OF_BOTTOMS = ("Collar", "Sleeve Length", "With Inner Wear", "Sleeves Rolled Up", "Top Open", "Top Tuck In")
# Values of which a sentence says nothing: nobody would.
UNSAID = (("Length", "Uncertain"),)
PROMPT_COLOURS = ("black", "white", "red")

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
# States that are said when they are so.
_STATES = {
    "Top Open": "open front",
    "With Inner Wear": "with inner wear",
    "Sleeves Rolled Up": "sleeves rolled up",
    "Top Tuck In": "tucked in",
}


def sentence(category: str, attributes: Mapping[str, str], colours: Sequence[str]) -> str:
    """E.g. "a photo of a long sleeve striped hoodie in navy and white, regular fit, hooded collar".

    What `attributes` (Table 6's names and values) leaves out isn't mentioned; nor are the medium length and a "No".
    """
    sleeve = attributes.get("Sleeve Length", "").lower()
    if sleeve and sleeve != "sleeveless":
        sleeve += " sleeve"
    words = (sleeve, _PRINTS.get(attributes.get("Print", ""), ""), category.lower())
    noun = " ".join(word for word in words if word)
    article = "a pair of" if category in BOTTOMS else "an" if noun[0] in "aeiou" else "a"
    parts = [f"a photo of {article} {noun} in {' and '.join(colours)}"]
    if attributes.get("Fit"):
        parts.append(f"{attributes['Fit'].lower()} fit")
    if attributes.get("Collar") in _COLLARS:
        parts.append(_COLLARS[attributes["Collar"]])
    if attributes.get("Length") not in (None, "Uncertain", "Medium"):
        parts.append(f"{attributes['Length'].lower()} length")
    if attributes.get("Fabric"):
        parts.append(attributes["Fabric"].lower())
    if attributes.get("Surface Texture") in _CRAFTS:
        parts.append(_CRAFTS[attributes["Surface Texture"]])
    parts += [words for name, words in _STATES.items() if attributes.get(name) == "Yes"]
    return ", ".join(parts)


def prompts(category: str, name: str, value: str) -> list[str]:
    """What photos of plain garments of this category with this value are called, one sentence a colour.

    For `name` "Category" the value is the category.
    """
    category = value if name == "Category" else category
    attributes = {"Print": "Solid Color"} if name == "Category" else {"Print": "Solid Color", name: value}
    return [sentence(category, attributes, (colour,)) for colour in PROMPT_COLOURS]


def applies(category: str, name: str) -> bool:
    """Whether a garment of this category has the attribute at all."""
    return name not in NOT_OF_BOTTOMS or category not in (*BOTTOMS, "Skirt")
