"""How much is spent: samples, sampling steps, and what each training gets, the same for every variant."""

import dataclasses

from ragdiff_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """Attributes:
    photos: held-out photos of the main measurements; those on a part of the garments take half as many.
    people: held-out people to edit, and `garments` that they retrieve from.
    steps: of DDIM.
    added: flat-lays that an expanded memory gets (R: 856).
    train_steps: of every variant, all from one stem, on `train_pairs` drawn garments by `train_batch`.
    scratch_steps: of the autoencoders in its place, which start from nothing.
    batch: pictures at a time in measuring.
    """

    photos: int
    people: int
    garments: int
    steps: int
    added: int
    train_steps: int
    train_pairs: int
    scratch_steps: int
    train_batch: int = 16
    batch: int = 16

    def __post_init__(self):
        for name, least in (("photos", 8), ("people", 4), ("garments", 24), ("steps", 1), ("added", 2)):
            if getattr(self, name) < least:
                raise UserError(f"{name} {getattr(self, name)}: must be at least {least}")
        if self.train_pairs < 4:
            raise UserError(f"train_pairs {self.train_pairs}: must be at least 4")
        for name in ("train_steps", "scratch_steps", "train_batch", "batch"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} {getattr(self, name)}: must be at least 1")


BUDGETS = {
    "smoke": Budget(
        photos=8, people=4, garments=24, steps=2, added=4, train_steps=2, train_pairs=8, scratch_steps=2,
        train_batch=2, batch=4
    ),
    "hour": Budget(
        photos=128, people=96, garments=1024, steps=12, added=856, train_steps=100, train_pairs=2048, scratch_steps=2400
    ),
    "day": Budget(
        photos=512, people=512, garments=2048, steps=30, added=856, train_steps=2000, train_pairs=16384,
        scratch_steps=2400,
    ),
}  # fmt: skip
"""`hour`: some minutes on two cores without the trainings, an hour or two with them; `day`: the list at length."""
