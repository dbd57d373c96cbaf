"""The photo's latents under the noisy ones, in one picture, no ReferenceNet (TryOffAnyone, arXiv 2412.08573).

ragdiff train --config configs/baselines/latent_concat.py:STEM --workdir runs/baselines/latent_concat
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

TINY = Path(__file__).parents[1] / "ragdiffusion" / "tiny.py"


def get_config(stem: str = "") -> ConfigDict:
    """`stem`: a model folder whose U-Net and frozen parts training starts from."""
    return runpy.run_path(str(TINY))["branch"](stem, "latent_concat")
