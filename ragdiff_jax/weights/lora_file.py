"""LoRA adapters on disk, alone, in the layouts of diffusers and PEFT.

diffusers   pytorch_lora_weights.safetensors      unet.down_blocks.1....to_q.lora_A.weight   [r, in]
            (rank and alpha in its header)        unet.down_blocks.1....to_q.lora_B.weight   [out, r]
PEFT        adapter_model.safetensors of one part base_model.model.down_blocks.1....to_q.lora_A.weight
            adapter_config.json (rank, alpha)
"""

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import jax
import numpy as np

from ragdiff_jax.errors import UserError
from ragdiff_jax.weights.folder import disk_tensors
from ragdiff_jax.weights.names import FLOATS, flatten, plan, require_floats
from ragdiff_jax.weights.safetensors_io import Tensors, read_json, write_file, write_text
from ragdiff_jax.weights.sources import Piece, Source, View, whole
from ragdiff_jax.weights.streaming import load_tree, require_space, size_of

Layout = Literal["diffusers", "peft"]
DIFFUSERS_FILE, PEFT_FILE, PEFT_CONFIG = (
    "pytorch_lora_weights.safetensors",
    "adapter_model.safetensors",
    "adapter_config.json",
)
METADATA = "lora_adapter_metadata"  # diffusers' key in the header
_PEFT_PREFIX = "base_model.model."
# diffusers before 0.21 called A down and B up.
_PAIR = re.compile(r"(?P<module>.+)\.(?:lora_(?P<new>[AB])|lora\.(?P<old>down|up))\.weight")
_ALPHA = re.compile(r"(?P<module>.+)\.alpha")


@dataclasses.dataclass(frozen=True)
class Adapter:
    """One adapted module: the names of its A [r, in] and B [out, r] in the file, and the factor of their product."""

    a: str
    b: str
    scale: float


@dataclasses.dataclass(frozen=True)
class LoRAFile:
    """An opened file of adapters: {part: {module on disk: Adapter}} and the tensors themselves."""

    path: Path
    source: Source
    parts: Mapping[str, Mapping[str, Adapter]]


def save_lora(
    folder: str | Path,
    adapters: Mapping[str, Any],
    params: Mapping[str, Any],
    *,
    rank: int,
    alpha: float,
    layout: Layout = "diffusers",
) -> Path:
    """Writes the adapters of `init_lora` {part: tree} alone; returns the file.

    `params` {part: tree} are those that they adapt (shapes are enough): ReferenceNet's cut stack is named after them.
    Every process must call it, the first writes. Raises `UserError` when `folder` cannot be written, and for several
    parts in PEFT's layout, which has no name for a part.
    """
    folder = Path(folder)
    if layout == "peft" and len(adapters) != 1:
        raise UserError(f"PEFT's layout holds one part, not {', '.join(adapters)}; use diffusers' layout")
    entries: dict[str, tuple[str, tuple[int, ...]]] = {}
    sources = []
    for part, tree in adapters.items():
        prefix = f"{part}." if layout == "diffusers" else _PEFT_PREFIX
        leaves = flatten(nn.meta.unbox(tree))
        shapes = {path: leaf.shape for path, leaf in flatten(nn.meta.unbox(params[part])).items()}
        for p in plan(shapes | {path: leaf.shape for path, leaf in leaves.items()}):
            if p.path in leaves:
                entries |= {prefix + name: ("float32", p.disk_shape) for name in p.names}
                sources.append((leaves[p.path], p))
    arrays = (array for leaf, p in sources for array in disk_tensors(leaf, p, np.dtype("float32")))
    file = folder / (DIFFUSERS_FILE if layout == "diffusers" else PEFT_FILE)
    if jax.process_index() != 0:
        for _ in arrays:  # takes part in gathering the shards
            pass
        return file
    modules = {part: _modules(entries, f"{part}." if layout == "diffusers" else _PEFT_PREFIX) for part in adapters}
    metadata = {}
    if layout == "diffusers":
        settings = {
            f"{part}.{name}": value
            for part in adapters
            for name, value in {"r": rank, "lora_alpha": alpha, "target_modules": modules[part]}.items()
        }
        metadata = {METADATA: json.dumps(settings, sort_keys=True)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        require_space(folder, size_of(entries))
        write_file(file, entries, arrays, metadata)
        if layout == "peft":
            config = {
                "peft_type": "LORA",
                "r": rank,
                "lora_alpha": alpha,
                "target_modules": next(iter(modules.values())),
            }
            write_text(folder / PEFT_CONFIG, json.dumps(config, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error}); choose another") from error
    return file


def _modules(names: Iterable[str], prefix: str) -> list[str]:
    found = (_PAIR.fullmatch(name.removeprefix(prefix)) for name in names if name.startswith(prefix))
    return sorted({match["module"] for match in found if match})


def open_lora(path: str | Path, part: str = "unet") -> LoRAFile:
    """Opens a file of adapters, or the folder that has one; `part` is what PEFT's layout, which doesn't say, is for.

    Raises `UserError` for other files: another kind of adapter, halves of a pair, ranks that differ in a pair.
    """
    path = Path(path)
    if path.is_dir():
        held = [path / name for name in (DIFFUSERS_FILE, PEFT_FILE) if (path / name).is_file()]
        if not held:
            raise UserError(f"{path}: has neither {DIFFUSERS_FILE} nor {PEFT_FILE}")
        path = held[0]
    source = Tensors({path: None})
    parts: dict[str, dict[str, dict[str, str]]] = {}
    alphas: dict[tuple[str, str], float] = {}
    other = []
    for name in source.shapes:
        match, alpha = _PAIR.fullmatch(name), _ALPHA.fullmatch(name)
        if match:
            where, module = _split(match["module"], part)
            half = match["new"] or {"down": "A", "up": "B"}[match["old"]]
            parts.setdefault(where, {}).setdefault(module, {})[half] = name
        elif alpha and source.shapes[name] == () and source.dtypes[name] in FLOATS:
            alphas[_split(alpha["module"], part)] = float(source.read(name, ()))
        else:
            other.append(name)
    if other or not parts:
        what = f"what is not LoRA of diffusers or PEFT: {', '.join(other[:3])}" if other else "no adapters"
        raise UserError(f"{path}: holds {what}")
    require_floats(source.dtypes, source.shapes, str(path))
    settings = _settings(path, source, part)
    return LoRAFile(
        path=path,
        source=source,
        parts={
            where: {
                module: _adapter(path, source, module, pair, alphas.get((where, module)), settings.get(where, {}))
                for module, pair in modules.items()
            }
            for where, modules in parts.items()
        },
    )


def _split(module: str, part: str) -> tuple[str, str]:
    if module.startswith(_PEFT_PREFIX):
        return part, module.removeprefix(_PEFT_PREFIX)
    where, _, rest = module.partition(".")
    return where, rest


def _settings(path: Path, source: Tensors, part: str) -> dict[str, dict[str, Any]]:
    """{part: PEFT's settings of its adapters}, of the header or of adapter_config.json."""
    if METADATA in source.metadata:
        try:
            values = dict(json.loads(source.metadata[METADATA]))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}: its {METADATA} is damaged ({error}); get it again") from error
        out: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            where, _, field = name.partition(".")
            out.setdefault(where, {})[field] = value
        return out
    config = path.parent / PEFT_CONFIG
    return {part: read_json(config)} if path.name == PEFT_FILE and config.is_file() else {}


def _adapter(path: Path, source: Source, module: str, pair, alpha: float | None, settings) -> Adapter:
    if set(pair) != {"A", "B"}:
        raise UserError(f"{path}: {module} has no lora_{'B' if 'A' in pair else 'A'}; get the file again")
    a, b = source.shapes[pair["A"]], source.shapes[pair["B"]]
    if len(a) not in (2, 4) or len(a) != len(b) or a[0] != b[1] or b[2:] not in ((), (1, 1)):
        raise UserError(f"{path}: {module} has A {list(a)} and B {list(b)}, which don't fit together")
    if settings.get("use_dora"):
        raise UserError(f"{path}: is DoRA, which is more than A and B; only LoRA is read")
    if alpha is None:
        alpha = _alpha_of(path, module, settings, a[0])
    if not a[0]:
        raise UserError(f"{path}: {module} is of rank 0; get the file again")
    scale = alpha / (a[0] ** 0.5 if settings.get("use_rslora") else a[0])
    return Adapter(a=pair["A"], b=pair["B"], scale=scale)


def _alpha_of(path: Path, module: str, settings: Mapping[str, Any], rank: int) -> float:
    """By PEFT's settings: that of the first pattern, a regular expression of a name's end, else everyone's."""
    try:
        patterns = dict(settings.get("alpha_pattern") or {})
        own = [value for end, value in patterns.items() if re.match(rf"(.*\.)?({end})$", module)]
        return float(own[0] if own else settings.get("lora_alpha", rank))
    except (TypeError, ValueError, re.error) as error:
        raise UserError(f"{path}: the alpha of {module} can't be read ({error}); get its settings again") from error


def load_lora(
    file: LoRAFile, adapters: Mapping[str, Any], params: Mapping[str, Any], *, scale: float
) -> dict[str, Any]:
    """Adapters {part: tree} of the shapes and shardings of `adapters`, read from `file`, to train them on.

    B is multiplied by the file's own factor over `scale` (alpha / rank of the run), so that the product stays what it
    was. Raises `UserError` when the file holds other modules or another rank.
    """
    out = {}
    if unknown := sorted(set(file.parts) - set(adapters)):
        raise UserError(f"{file.path}: adapts {', '.join(unknown)}, this run {', '.join(adapters)}")
    for part, tree in adapters.items():
        pieces, factors = {}, {}
        for module, adapter in file.parts.get(part, {}).items():
            pieces[f"{module}.lora_A.weight"] = Piece(adapter.a)
            pieces[f"{module}.lora_B.weight"] = Piece(adapter.b)
            factors[f"{module}.lora_B.weight"] = adapter.scale / scale
        source = _Scaled(View(file.source, pieces), factors)
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
        shardings = jax.tree.map(lambda x: x.sharding, tree)
        stacks = {path: leaf.shape for path, leaf in flatten(nn.meta.unbox(params[part])).items()}
        out[part] = load_tree(source, abstract, str(file.path), shardings=shardings, beside=stacks)
    return out


class _Scaled:
    """A source with some tensors multiplied by a number."""

    def __init__(self, source: Source, factors: Mapping[str, float]):
        self._source, self._factors = source, factors
        self.shapes, self.dtypes = source.shapes, source.dtypes

    def read(self, name: str, index) -> np.ndarray:
        """See `Source`."""
        out = self._source.read(name, index)
        factor = self._factors.get(name, 1.0)
        return out if factor == 1.0 else out.astype(np.float32) * np.float32(factor)


class Merged:
    """The tensors of one part with a file's adapters merged in: weight + scale * strength * B A, one at a time."""

    def __init__(self, source: Source, file: LoRAFile, part: str, strength: float = 1.0):
        """`source` is the part under its own names. Raises `UserError` listing the modules that don't fit."""
        self._source, self._file, self._strength = source, file, strength
        self._adapters = {f"{module}.weight": adapter for module, adapter in file.parts.get(part, {}).items()}
        self.shapes, self.dtypes = source.shapes, source.dtypes
        wrong = []
        for name, adapter in self._adapters.items():
            a, b = file.source.shapes[adapter.a], file.source.shapes[adapter.b]
            wanted = source.shapes.get(name)
            if wanted is None or tuple(wanted) != (b[0], *a[1:]):
                held = "not there" if wanted is None else f"is {list(wanted)}"
                wrong.append(f"{name} ({held}, adapted as {[b[0], *a[1:]]})")
        if wrong:
            raise UserError(f"{file.path} does not fit {part}: {', '.join(wrong)}")

    def read(self, name: str, index) -> np.ndarray:
        """See `Source`."""
        weight = self._source.read(name, index)
        adapter = self._adapters.get(name)
        if adapter is None:
            return weight
        a, b = (self._whole(half) for half in (adapter.a, adapter.b))
        b = b.reshape(b.shape[:2])
        delta = (b @ a.reshape(a.shape[0], -1)).reshape(b.shape[0], *a.shape[1:])[index]
        return (weight.astype(np.float32) + np.float32(adapter.scale * self._strength) * delta).astype(weight.dtype)

    def _whole(self, name: str) -> np.ndarray:
        return self._file.source.read(name, whole(self._file.source.shapes[name])).astype(np.float32)


def require_parts(file: LoRAFile, parts: Iterable[str]) -> None:
    """Raises `UserError` when the file adapts a part that is none of `parts`."""
    parts = list(parts)
    if unknown := sorted(set(file.parts) - set(parts)):
        raise UserError(f"{file.path}: adapts {', '.join(unknown)}, which is not there; there is {', '.join(parts)}")
