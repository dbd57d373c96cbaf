"""The vanilla model with the structure embedding, no silhouette (R Table 2 "+ emb").

ragdiff train --config configs/baselines/embedding_only.py:STEM --workdir runs/baselines/embedding_only
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

TINY = Path(__file__).parents[1] / "ragdiffusion" / "tiny.py"


def get_config(stem: str = "") -> ConfigDict:
    """`stem`: a model folder whose U-Net and frozen parts training starts from."""
    return runpy.run_path(str(TINY))["branch"](stem, "reference", "structure")
