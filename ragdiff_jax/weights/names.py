"""Torch's tensor names and layouts for our parameter trees: one generic rule, no table a network.

    down_blocks_0/resnets_1/conv1/kernel        down_blocks.0.resnets.1.conv1.weight    HWIO <- OIHW
    encoder/layers/mlp/fc1/kernel               encoder.layers.{0..}.mlp.fc1.weight     [in, out] <- [out, in]
    transformer_blocks_last/attn1/to_k/kernel   transformer_blocks.{depth - 1}.attn1.to_k.weight

A module's trailing numbers are indices on disk; `transformer_blocks`, `layers` and `layer` without one are stacks, the
index their leading axis. Leaves `kernel`, `scale`, `embedding` are `weight` on disk; others keep their name.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax

from ragdiff_jax.errors import UserError

STACKS = frozenset({"transformer_blocks", "layers", "layer"})
LAST = "_last"
FLOATS = frozenset({"float32", "float16", "bfloat16", "float64"})
# Tensors that old versions of transformers wrote; they hold no parameter.
IGNORED = re.compile(r"(^|\.)position_ids$")
# Names of the autoencoder's attention before diffusers 0.14; published checkpoints still have them.
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD = re.compile(r"(\battentions\.\d+\.)(query|key|value|proj_attn)(\.\w+)$")


@dataclasses.dataclass(frozen=True)
class LeafPlan:
    """Where a leaf comes from: `names` on disk (several for a stack), `axes`: the disk axis of each."""

    path: tuple[str, ...]
    names: tuple[str, ...]
    stacked: bool
    axes: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def disk_shape(self) -> tuple[int, ...]:
        """The shape of each tensor on disk."""
        ours = self.shape[1:] if self.stacked else self.shape
        disk = [0] * len(ours)
        for size, axis in zip(ours, self.axes, strict=True):
            disk[axis] = size
        return tuple(disk)


def flatten(params: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
    """Nested dictionaries to {path: leaf}, in tree order. Boxes (`nn.Partitioned`) must be off."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    return {tuple(str(key.key) for key in path): leaf for path, leaf in leaves}


def _disk_module(name: str) -> str:
    if re.fullmatch(r"linear_\d+", name):  # diffusers' own name in the timestep embeddings, no index
        return name
    match = re.fullmatch(r"(.*?)((?:_\d+)+)", name)
    return match[1] + match[2].replace("_", ".") if match else name


def _stack_depth(path: tuple[str, ...], shapes: Mapping[tuple[str, ...], tuple[int, ...]]) -> int:
    return next((shape[0] for other, shape in shapes.items() if other[: len(path)] == path), 0)


def plan(shapes: Mapping[tuple[str, ...], tuple[int, ...]]) -> list[LeafPlan]:
    """The disk names and layouts of all leaves, given each leaf's shape by path."""
    plans = []
    for path, shape in shapes.items():
        *modules, leaf = path
        parts, stack = [], None
        for i, module in enumerate(modules):
            if module in STACKS:
                stack = len(parts) + 1
                parts += [module, "*"]
            elif module.endswith(LAST) and module.removesuffix(LAST) in STACKS:
                base = module.removesuffix(LAST)
                parts += [base, str(_stack_depth((*path[:i], base), shapes))]
            else:
                parts.append(_disk_module(module))
        parts.append("weight" if leaf in ("kernel", "scale", "embedding") else leaf)
        rank = len(shape) - (stack is not None)
        axes = {2: (1, 0), 4: (2, 3, 1, 0)}.get(rank) if leaf == "kernel" else None
        names = [".".join(parts)]
        if stack is not None:
            names = [".".join([*parts[:stack], str(n), *parts[stack + 1 :]]) for n in range(shape[0])]
        plans.append(
            LeafPlan(
                path=tuple(path),
                names=tuple(names),
                stacked=stack is not None,
                axes=tuple(axes or range(rank)),
                shape=tuple(shape),
            )
        )
    return plans


def resolve(
    wanted: Mapping[str, tuple[int, ...]],
    found: Mapping[str, tuple[int, ...]],
    where: str,
    allow_surplus: bool = False,
) -> dict[str, str]:
    """Matches the names that a network wants with those that a file holds: {wanted name: name in the file}.

    Both map names to shapes. transformers writes CLIP towers with and without the leading `text_model.` or
    `vision_model.`, and old autoencoders have other attention names; both are understood.

    Raises `UserError` that lists every missing, surplus and mis-shaped tensor.
    """
    names: dict[str, str] = {}
    surplus: list[str] = []
    for name in found:
        new = _OLD.sub(lambda m: m[1] + OLD_ATTENTION[m[2]] + m[3], name)
        candidates = (name, new, f"text_model.{name}", f"vision_model.{name}")
        match = next((c for c in candidates if c in wanted and c not in names), None)
        if match is not None:
            names[match] = name
        elif not allow_surplus and not IGNORED.search(name):
            surplus.append(name)
    missing = [name for name in wanted if name not in names]
    wrong = [
        f"{names[name]} {list(found[names[name]])} instead of {list(shape)}"
        for name, shape in wanted.items()
        if name in names and tuple(found[names[name]]) != tuple(shape)
    ]
    if missing or surplus or wrong:
        raise UserError(f"{where} does not fit: " + _listing(missing, surplus, wrong))
    return names


def require_floats(dtypes: Mapping[str, str], names: Iterable[str], where: str) -> None:
    """Raises `UserError` that lists the tensors among `names` whose dtype is none that parameters have."""
    wrong = [f"{name} ({dtypes[name]})" for name in names if dtypes[name] not in FLOATS]
    if wrong:
        raise UserError(f"{where}: parameters are one of {', '.join(sorted(FLOATS))}, not so: {', '.join(wrong)}")


def _listing(missing: Sequence[str], surplus: Sequence[str], wrong: Sequence[str]) -> str:
    kinds = (("missing", missing), ("not expected", surplus), ("wrong shape", wrong))
    return "; ".join(f"{kind} ({len(names)}): {', '.join(sorted(names))}" for kind, names in kinds if names)
