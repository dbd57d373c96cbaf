"""The folders of `evaluate --networks`: each says by its config what it is, and so what can be measured with it."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ragdiff_jax.data.tokenizer import Tokenizer
from ragdiff_jax.errors import UserError
from ragdiff_jax.evaluation.lpips_weights import LpipsWeights
from ragdiff_jax.models.clip_text import CLIPTextConfig
from ragdiff_jax.models.clip_vision import CLIPVisionConfig
from ragdiff_jax.weights.folder import fingerprint, load_part, read_config
from ragdiff_jax.weights.kinds import KINDS, kind_of
from ragdiff_jax.weights.metric_networks import MetricNetwork, is_metric_network, load_metric_network


@dataclasses.dataclass(frozen=True)
class Tower:
    """One of CLIP's towers: config, parameters, fingerprint; the text's has its tokenizer."""

    config: CLIPTextConfig | CLIPVisionConfig
    params: Any
    sha256: str
    tokenizer: Tokenizer | None = None


@dataclasses.dataclass(frozen=True)
class Networks:
    """What was given; None, or no LPIPS, is what wasn't."""

    lpips: tuple[LpipsWeights, ...] = ()
    inception: MetricNetwork | None = None
    dists: MetricNetwork | None = None
    vision: Tower | None = None
    text: Tower | None = None


def load_networks(folders: Sequence[Path], lpips: Sequence[LpipsWeights] = ()) -> Networks:
    """Each folder: of `weights import`, a metric's network or a tower of CLIP; a text tower's tokenizer lies in its
    folder, in `tokenizer` there, or in `tokenizer` beside it.

    Raises `UserError` for a folder that is something else, two of one kind, and towers of different width.
    """
    found: dict[str, Any] = {"lpips": list(lpips)}
    for folder in folders:
        name, network = _load(Path(folder))
        if name == "lpips":
            if any(given.net == network.net for given in found["lpips"]):
                raise UserError(f"--networks {folder}: LPIPS ({network.net}) is given twice; leave one out")
            found["lpips"].append(network)
        elif name in found:
            raise UserError(f"--networks {folder}: a second {name}; leave one out")
        else:
            found[name] = network
    if "vision" in found and "text" in found:
        widths = [found[name].config.projection_dim for name in ("vision", "text")]
        if widths[0] != widths[1]:
            raise UserError(f"--networks: CLIP's towers are {widths[0]} and {widths[1]} wide; give both of one CLIP")
    return Networks(**found | {"lpips": tuple(found["lpips"])})


def _load(folder: Path) -> tuple[str, Any]:
    if is_metric_network(folder):
        network = load_metric_network(folder)
        if network.kind.startswith("lpips"):
            return "lpips", LpipsWeights(network.kind.removeprefix("lpips-"), network.params, network.sha256)
        return network.kind, network
    plain = read_config(folder)
    kind = kind_of(plain)
    if kind is None or kind.name not in ("clip-vision", "clip-text"):
        what = kind.name if kind else "nothing that measures"
        raise UserError(f"--networks {folder}: is {what}; name folders of `ragdiff weights import` (see its --kind)")
    config = kind.read_config(plain, str(folder))
    if not config.with_projection:
        raise UserError(f"--networks {folder}: has no projection into CLIP's joint space; import it with one")
    params = load_part(folder, KINDS[kind.name].abstract(config))
    name, what = kind.name.removeprefix("clip-"), fingerprint(params, config.to_dict())
    if name != "text":
        return name, Tower(config, params, what, None)
    place = _tokenizer_folder(folder)
    # Other words are another measure.
    files = [what.encode(), *(file.read_bytes() for file in sorted(place.glob("*")) if file.name in _VOCABULARY)]
    return name, Tower(config, params, hashlib.sha256(b"\0".join(files)).hexdigest(), Tokenizer.from_folder(place))


_VOCABULARY = ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def _tokenizer_folder(folder: Path) -> Path:
    for place in (folder, folder / "tokenizer", folder.parent / "tokenizer"):
        if (place / "vocab.json").is_file() or (place / "tokenizer.json").is_file():
            return place
    raise UserError(f"--networks {folder}: a text tower needs its tokenizer; lay it into {folder / 'tokenizer'}")
