"""RAGDiffusion itself on the baselines' terms: every condition made anew on the stem (R Table 2 without PGEA).

ragdiff train --config configs/baselines/full.py:STEM --workdir runs/baselines/full
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

TINY = Path(__file__).parents[1] / "ragdiffusion" / "tiny.py"


def get_config(stem: str = "") -> ConfigDict:
    """`stem`: a model folder whose U-Net and frozen parts training starts from."""
    return runpy.run_path(str(TINY))["branch"](stem, "reference", "structure", "landmark")
