"""All claims, those that need no training first."""

from ragdiff_jax.evaluation.claims import list_editing, list_pictures, list_retrieval, list_trained
from ragdiff_jax.evaluation.claims.claim import Claim

CLAIMS: tuple[Claim, ...] = (
    *list_retrieval.CLAIMS,
    *list_pictures.CLAIMS,
    *list_editing.CLAIMS,
    *list_trained.CLAIMS,
)
