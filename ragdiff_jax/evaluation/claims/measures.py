"""Every measurement by name: what it does and which inputs decide its numbers."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from ragdiff_jax.evaluation.claims.editing import Edit, editing, text_retrieval, words
from ragdiff_jax.evaluation.claims.generating import Arm, control, generation
from ragdiff_jax.evaluation.claims.retrieving import curation, extreme_growth, growth, retrieval, style_growth
from ragdiff_jax.evaluation.claims.store import Measured
from ragdiff_jax.evaluation.claims.trained import logos, variant_pictures
from ragdiff_jax.evaluation.claims.variants import VARIANTS, recipe
from ragdiff_jax.evaluation.claims.world import World

VERSION = 1
"""Of what measurements do; a change of any makes all be measured again."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measure:
    """Attributes:
    run: (world, seed) -> columns.
    inputs: of `World.fingerprint`. uses: fields of the budget that its numbers depend on.
    variant: what it needs trained, or "".
    revision: counts its changes, where only this one has to be measured again.
    """

    run: Callable[[World, int], Measured]
    inputs: tuple[str, ...]
    uses: tuple[str, ...]
    variant: str = ""
    revision: int = 0

    def key(self, world: World, seed: int) -> dict[str, Any]:
        """All that decides the numbers. Raises `NotRun` where a variant's config isn't there."""
        budget = dataclasses.asdict(world.budget)
        key: dict[str, Any] = {name: world.fingerprint(name) for name in self.inputs}
        key |= {name: budget[name] for name in self.uses}
        if self.variant:
            key["recipe"] = recipe(world, self.variant, seed)
        if self.revision:
            key["revision"] = self.revision
        return key | {"version": VERSION, "drawn": world.drawn, "image_size": world.image_size, "seed": seed}


_DRAWN = 1  # how silhouettes are found in drawn flat-lays (`data.silhouettes.flat_mask`)


def _pictures(arm: Arm) -> Measure:
    expanded = ("added",) if arm.memory in ("extreme", "studio") else ()
    return Measure(
        run=functools.partial(generation, arm=arm),
        inputs=("stem", "memory"),
        uses=("photos", "steps", "batch", *expanded),
        revision=_DRAWN,
    )


def _variant(name: str, arm: Arm) -> Measure:
    base = _pictures(arm)
    run = functools.partial(variant_pictures, name=name, arm=arm)
    return dataclasses.replace(base, run=run, variant=name)


def _edited(edit: Edit) -> Measure:
    uses = ("people", "garments", "steps", "batch")
    return Measure(run=functools.partial(editing, edit=edit), inputs=("editor", "tower"), uses=uses)


def _retrieved(run: Callable[[World, int], Measured], *uses: str) -> Measure:
    return Measure(run=run, inputs=("stem", "memory"), uses=("photos", *uses))


def _of_editor(run: Callable[[World, int], Measured]) -> Measure:
    return Measure(run=run, inputs=("editor",), uses=("people", "garments"))


MEASURES: dict[str, Measure] = {
    "retrieval": dataclasses.replace(_retrieved(retrieval), revision=1),
    "curation": _retrieved(curation),
    "growth": _retrieved(growth),
    "style_growth": _retrieved(style_growth, "added"),
    "extreme_growth": _retrieved(extreme_growth, "added"),
    "control": Measure(
        run=control, inputs=("stem", "memory"), uses=("photos", "steps", "batch"), revision=_DRAWN
    ),
    "text_retrieval": _of_editor(text_retrieval),
    "words": _of_editor(words),
}
ARMS = {
    "usual": Arm(),
    "K=1": Arm(neighbours=1),
    "K=8": Arm(neighbours=8),
    "unknown": Arm(known=False),
    "no_embedding": Arm(adapter=0.0),
    "foreign": Arm(foreign=True),
    "lower/upper_memory": Arm(part="lower", memory="upper"),
    "lower/whole_memory": Arm(part="lower"),
    "extreme/whole_memory": Arm(part="extreme"),
    "extreme/expanded": Arm(part="extreme", memory="extreme"),
    "studio/whole_memory": Arm(part="studio"),
    "studio/expanded": Arm(part="studio", memory="studio"),
    "plain/usual": Arm(part="plain"),
    "plain/dark": Arm(part="plain", light="dark"),
    "plain/bright": Arm(part="plain", light="bright"),
    "plain/dark_balanced": Arm(part="plain", light="dark", balance=True),
    "plain/bright_balanced": Arm(part="plain", light="bright", balance=True),
}
EDITS = {
    "N=0": Edit(garments=0),
    "N=1": Edit(garments=1),
    "N=2": Edit(garments=2),
    "N=3": Edit(garments=3),
    "wrong=1": Edit(wrong=1),
    "wrong=2": Edit(wrong=2),
    "wrong=3": Edit(wrong=3),
    "wrong=2/reject": Edit(wrong=2, reject=0.1),
    "agreeing": Edit(choice="agreeing"),
    "conflicting": Edit(choice="conflicting"),
    "conflicting/pool": Edit(choice="conflicting", fusion="pool", weighting="similarity"),
    "pool=10": Edit(garments=10, fusion="pool"),
}
MEASURES |= {f"pictures/{name}": _pictures(arm) for name, arm in ARMS.items()}
MEASURES |= {f"edits/{name}": _edited(edit) for name, edit in EDITS.items()}
# Of every variant that ends in a whole model: pictures of each kind of garment and light.
KINDS = {
    "held_out": Arm(),
    "extreme": Arm(part="extreme"),
    "studio": Arm(part="studio"),
    "lower": Arm(part="lower"),
    "dark": Arm(part="plain", light="dark"),
    "bright": Arm(part="plain", light="bright"),
}
PARTS_ONLY = ("autoencoder4", "autoencoder16", "pgea_in", "pgea_out", "pgea_convs", "pgea_unet")
MEASURES |= {
    f"{name}/{kind}": _variant(name, arm) for name in VARIANTS if name not in PARTS_ONLY for kind, arm in KINDS.items()
}
MEASURES |= {
    f"logos/{name}": Measure(
        run=functools.partial(logos, name=name), inputs=("stem", "memory"), uses=("photos",), variant=name
    )
    for name in ("autoencoder4", "autoencoder16")
}


def needs_training(name: str) -> bool:
    """Whether a measure needs a trained variant."""
    return bool(MEASURES[name].variant)
