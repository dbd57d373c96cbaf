"""A U-Net draws the silhouette from the photo; no memory, no embedding (R Table 2 "Generating mask").

ragdiff train --config configs/baselines/mask_unet.py:STEM --workdir runs/baselines/mask_unet
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

TINY = Path(__file__).parents[1] / "ragdiffusion" / "tiny.py"


def get_config(stem: str = "") -> ConfigDict:
    """`stem`: a model folder whose U-Net and frozen parts training starts from."""
    return runpy.run_path(str(TINY))["branch"](stem, "reference", "predicted_landmark")
