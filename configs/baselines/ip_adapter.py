"""CLIP's tokens of the photo through a second cross-attention (IP-Adapter-plus, arXiv 2308.06721).

ragdiff train --config configs/baselines/ip_adapter.py:STEM --workdir runs/baselines/ip_adapter
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

TINY = Path(__file__).parents[1] / "ragdiffusion" / "tiny.py"


def get_config(stem: str = "") -> ConfigDict:
    """`stem`: a model folder whose U-Net and frozen parts training starts from."""
    return runpy.run_path(str(TINY))["branch"](stem, "image_prompt")
