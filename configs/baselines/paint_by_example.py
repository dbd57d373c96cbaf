"""CLIP's class token of the photo, through an MLP, in place of the text (Paint-by-Example, arXiv 2211.13227).

ragdiff train --config configs/baselines/paint_by_example.py:STEM --workdir runs/baselines/paint_by_example
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

TINY = Path(__file__).parents[1] / "ragdiffusion" / "tiny.py"


def get_config(stem: str = "") -> ConfigDict:
    """`stem`: a model folder whose U-Net and frozen parts training starts from."""
    return runpy.run_path(str(TINY))["branch"](stem, "class_token")
