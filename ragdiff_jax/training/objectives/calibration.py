"""What serving may say of a photo's attributes, measured on held-out photos when a model is exported."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ragdiff_jax.systems.attribute_head import HeadAttributes
from ragdiff_jax.systems.zero_shot import Calibration, ZeroShotAttributes, calibrate
from ragdiff_jax.training.objectives.common import equal_parts

PHOTOS, BATCH = 512, 16


def calibrated(
    predictor: ZeroShotAttributes | HeadAttributes,
    arrays: Any,
    start: Mapping[str, Calibration] | None = None,
) -> dict[str, Calibration]:
    """`calibrate` on the first photos of `arrays` (`PairArrays` or the like), nothing given of them.

    An attribute of which too few photos tell keeps what `start` says, else what the predictor does uncalibrated.
    """
    found, ids = [], []
    for part, real in equal_parts(np.arange(min(PHOTOS, len(arrays))), BATCH):
        batch = arrays.batch(part)
        scores = predictor.scores(np.asarray(batch["photo"]), [None] * len(part))[0]
        found.append({name: rows[:real] for name, rows in scores.items()})
        ids.append(batch["photo_attributes"][:real])
    scores = {name: np.concatenate([some[name] for some in found]) for name in found[0]}
    start = {**predictor.calibration, **(start or {})}
    return calibrate(scores, np.concatenate(ids), start, scales=predictor.scales)
