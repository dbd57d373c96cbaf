"""The vanilla model with the retrieved silhouette, no structure embedding: the half that R Table 2 leaves out.

ragdiff train --config configs/baselines/silhouette_only.py:STEM --workdir runs/baselines/silhouette_only
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

TINY = Path(__file__).parents[1] / "ragdiffusion" / "tiny.py"


def get_config(stem: str = "") -> ConfigDict:
    """`stem`: a model folder whose U-Net and frozen parts training starts from."""
    return runpy.run_path(str(TINY))["branch"](stem, "reference", "landmark")
