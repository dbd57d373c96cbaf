"""The photo through a copy of the U-Net's encoder, added to the skips (ControlNet, arXiv 2302.05543; R 11.2).

ragdiff train --config configs/baselines/controlnet.py:STEM --workdir runs/baselines/controlnet
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

TINY = Path(__file__).parents[1] / "ragdiffusion" / "tiny.py"


def get_config(stem: str = "") -> ConfigDict:
    """`stem`: a model folder whose U-Net and frozen parts training starts from."""
    return runpy.run_path(str(TINY))["branch"](stem, "control")
