"""CLIP's tokens of the photo, through an adapter, in place of the text (TryOffDiff, arXiv 2411.18350).

ragdiff train --config configs/baselines/encoder_tokens.py:STEM --workdir runs/baselines/encoder_tokens
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

TINY = Path(__file__).parents[1] / "ragdiffusion" / "tiny.py"


def get_config(stem: str = "") -> ConfigDict:
    """`stem`: a model folder whose U-Net and frozen parts training starts from."""
    return runpy.run_path(str(TINY))["branch"](stem, "image_tokens")
