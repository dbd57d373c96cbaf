"""The PGEA figures' trainings fit the configs, and their logos lie where the print is."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.pgea.figures import SIZE, logo_boxes
from benchmarks.pgea.stages import EVERYTHING, Stages
from ragdiff_jax.cli.train import apply_settings, fill_train, read_config

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("stage", EVERYTHING)
def test_a_stage_changes_fields_that_its_config_has(stage):
    stages = Stages(Path("work"), Path("data"), Path("decoded"), Path("assets"), scale=0.1)
    command = stages.command(stage)
    config = read_config(str(REPOSITORY / command[command.index("--config") + 1]))
    fill_train(config)
    apply_settings(config, [word.removeprefix("--set=") for word in command if word.startswith("--set=")])
    assert config.data.folder == "data" and config.train.steps == int(config.train.steps) > 1


def test_a_logo_is_where_its_box_says():
    pictures, boxes = logo_boxes(4, SIZE)
    assert pictures.shape == (4, SIZE, SIZE, 3)
    for picture, (top, left, bottom, right) in zip(pictures, boxes, strict=True):
        inside = picture[top:bottom, left:right].reshape(-1, 3)
        assert min(bottom - top, right - left) >= 6 and len(inside) < SIZE * SIZE / 4
        assert np.ptp(inside, axis=0).max() > 24
