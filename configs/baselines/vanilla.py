"""ReferenceNet alone, no structure and no silhouette (R Table 1 "ReferenceNet", Table 2 "Vanilla Model").

ragdiff train --config configs/baselines/vanilla.py:STEM --workdir runs/baselines/vanilla
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

TINY = Path(__file__).parents[1] / "ragdiffusion" / "tiny.py"


def get_config(stem: str = "") -> ConfigDict:
    """`stem`: a model folder whose U-Net and frozen parts training starts from."""
    return runpy.run_path(str(TINY))["branch"](stem, "reference")
