"""`ragdiff train --config FILE:ARG --set KEY=VALUE`: a typo is an error that names what was meant."""

import pytest

from ragdiff_jax.cli.train import apply_settings, read_config
from ragdiff_jax.errors import UserError

CONFIG = """
from ml_collections import ConfigDict

def get_config(arg="small"):
    train = {"steps": 100, "learning_rate": 1e-4, "shuffle": True}
    return ConfigDict({"size": arg, "train": train, "mesh": (1, 1)})
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(CONFIG)
    return path


def test_an_argument_reaches_get_config(file):
    assert read_config(str(file)).size == "small"
    assert read_config(f"{file}:large").size == "large"


def test_an_argument_that_get_config_does_not_take_is_one_line(tmp_path):
    path = tmp_path / "plain.py"
    path.write_text(CONFIG.replace('arg="small"', "").replace("arg,", '"small",'))
    assert read_config(str(path)).size == "small"
    with pytest.raises(UserError, match="leave :large out"):
        read_config(f"{path}:large")


def test_values_keep_their_fields_type(file):
    config = read_config(str(file))
    apply_settings(config, ["train.steps=5", "train.learning_rate=1", "train.shuffle=false", "mesh=(2,4)", "size=7"])
    assert config.train.steps == 5 and config.train.shuffle is False
    assert config.train.learning_rate == 1.0 and isinstance(config.train.learning_rate, float)
    assert config.mesh == (2, 4) and config.size == "7"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.step=5", "did you mean train.steps"),
        ("steps=5", "did you mean train.steps"),
        ("train.steps", "KEY=VALUE"),
        ("train.steps=many", "must be int"),
        ("train.steps=1.5", "must be int"),
        ("train.shuffle=1", "must be bool"),
        ("train.steps=True", "must be int"),
    ],
)
def test_a_typo_is_named(file, setting, message):
    with pytest.raises(UserError, match=message):
        apply_settings(read_config(str(file)), [setting])


def test_no_config_file(tmp_path, file):
    with pytest.raises(UserError, match="absent.py: no such config file"):
        read_config(str(tmp_path / "absent.py"))
    file.write_text("x = 1")
    with pytest.raises(UserError, match=r"no get_config\(\)"):
        read_config(str(file))
