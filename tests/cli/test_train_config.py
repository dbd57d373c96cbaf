"""`ragdiff train --config FILE:ARG --set KEY=VALUE`: a typo is an error that names what was meant."""

from pathlib import Path

import pytest

from ragdiff_jax.cli.train import apply_settings, read_config
from ragdiff_jax.errors import UserError, check_choice
from ragdiff_jax.models.transformer import Remat

CONFIGS = Path(__file__).parents[2] / "configs"
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
    path.write_text(CONFIG.replace("def get_config", "import math\n\ndef get_config").replace("arg,", "math.sqrt(-1),"))
    with pytest.raises(UserError, match="math domain error; see the head of"):
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


def test_fields_of_the_preset_that_the_config_leaves_alone_can_be_set():
    config = read_config(str(CONFIGS / "ragdiffusion/sdxl.py"))
    apply_settings(config, ["model.changes.remat=dots", "model.changes.snr_gamma=5"])
    assert config.model.changes.to_dict() == {"dtype": "bfloat16", "remat": "dots", "snr_gamma": 5.0}
    with pytest.raises(UserError, match="model.changes.snr_gama.*no such field"):
        apply_settings(config, ["model.changes.snr_gama=5"])
    with pytest.raises(UserError, match="must be float"):
        apply_settings(config, ["model.changes.noise_offset=much"])
    with pytest.raises(UserError, match="remat 'some': choose none, block, dots"):
        check_choice("remat", "some", Remat)  # a system's own fields: beartype would be faster here
