"""What serving may say of a photo's attributes, measured on held-out photos when a model is exported."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ragdiff_jax.systems.attribute_head import HeadAttributes
from ragdiff_jax.systems.zero_shot import Calibration, ZeroShotAttributes, calibrate

PHOTOS, BATCH = 512, 16


def calibrated(
    predictor: ZeroShotAttributes | HeadAttributes,
    arrays: Any,
    start: Mapping[str, Calibration] | None = None,
) -> dict[str, Calibration]:
    """`calibrate` on the first photos of `arrays` (`PairArrays` or the like), nothing given of them."""
    found, ids = [], []
    for first in range(0, min(PHOTOS, len(arrays)), BATCH):
        # The last batch is filled up with its last photo, which then doesn't count.
        rows = np.arange(first, first + BATCH)
        batch = arrays.batch(rows.clip(max=len(arrays) - 1))
        found.append(predictor.scores(np.asarray(batch["photo"]), [None] * len(rows))[0])
        ids.append(np.where(rows[:, None] < len(arrays), batch["photo_attributes"], 0))
    scores = {name: np.concatenate([some[name] for some in found]) for name in found[0]}
    return calibrate(scores, np.concatenate(ids), start, scales=predictor.scales)
