"""Every config of the repository can be read, filled and built over data that aren't there."""

from pathlib import Path

import pytest

from ragdiff_jax.cli.train import fill_train, read_config
from ragdiff_jax.errors import UserError
from ragdiff_jax.training import TrainSettings
from ragdiff_jax.training.plan import abstract_objective

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.py"))
# They read the parts that the stages before wrote; their own tests build them.
NEED_PARTS = {f"baselines/{name}.py" for name in ("encoder_tokens", "ip_adapter", "paint_by_example")}
NEED_PARTS |= {"pgea/tiny.py", "pgea/sdxl_flux.py"}


@pytest.mark.parametrize("file", FILES)
def test_a_config_builds_its_objective(file):
    argument = ":stage1" if file.startswith("pgea/") else ""
    config = read_config(f"{CONFIGS / file}{argument}")
    fill_train(config)
    TrainSettings(**config.train)
    assert {"data", "fsdp", "tensor"} == set(config.mesh)
    if file in NEED_PARTS:
        with pytest.raises(UserError, match=r"model\.parts|no such|config\.json|image_encoder|tokens"):
            abstract_objective(config)
    else:
        assert abstract_objective(config).trainable
