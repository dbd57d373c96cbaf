"""What the two towers make of pairs: R Fig. 8's distribution of cosines and Fig. 7's t-SNE."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from ragdiff_jax.errors import UserError

BINS = 60
_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def similarity(
    photos: Float[np.ndarray, "n d"],
    flats: Float[np.ndarray, "n d"],
    memory: Float[np.ndarray, "m d"],
    own: Int[np.ndarray, " n"],
    groups: Shaped[np.ndarray, " n"],
) -> dict[str, Any]:
    """Cosines of photos with their own flat-lays, with the others' and with the memory (own rows left out); unit rows.

    Of each kind count, mean, deviation, quantiles and a histogram over [-1, 1] (shares, `BINS` bins). `auc`: how often
    a photo is nearer to its own flat-lay than to another's, ties half (None where there is no other); `rank1`: the
    share of photos that no other's is nearer to. Flat-lays of a photo's own group, its structure twins', are neither.
    """
    cosines = photos @ flats.T
    positive = np.diagonal(cosines)
    others = groups[:, None] != groups[None]
    kept = np.arange(len(memory))[None] != own[:, None]
    rows = [np.sort(row[keep]) for row, keep in zip(cosines, others, strict=True)]
    ranks = [(row, p) for row, p in zip(rows, positive, strict=True) if len(row)]
    below = [(np.searchsorted(row, p, "left") + np.searchsorted(row, p, "right")) / (2 * len(row)) for row, p in ranks]
    return {
        "own": _distribution(positive),
        "others": _distribution(cosines[others]),
        "memory": _distribution((photos @ memory.T)[kept]),
        "auc": float(np.mean(below)) if below else None,
        "rank1": float((positive > np.where(others, cosines, -np.inf).max(axis=1)).mean()),
    }


def _distribution(values: Float[np.ndarray, " n"]) -> dict[str, Any]:
    if not len(values):
        return {"count": 0, "mean": None, "std": None, "quantiles": {}, "histogram": [0.0] * BINS}
    counts, _ = np.histogram(values.clip(-1, 1), bins=BINS, range=(-1.0, 1.0))
    return {
        "count": len(values),
        "mean": float(values.mean()),
        "std": float(values.std()),
        "quantiles": {f"{q:g}": float(np.quantile(values, q)) for q in _QUANTILES},
        "histogram": (counts / len(values)).round(6).tolist(),
    }


def require_tsne() -> None:
    """Raises `UserError` where scikit-learn is missing."""
    try:
        import sklearn.manifold  # noqa: F401
    except ImportError as error:
        raise UserError("t-SNE needs scikit-learn: pip install 'ragdiff_jax[analyze]', or --pairs 0") from error


def tsne(
    photos: Float[np.ndarray, "n d"], flats: Float[np.ndarray, "n d"], *, seed: int
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n 2"]]:
    """Both towers' embeddings of n >= 2 pairs in one plane, by cosine, scaled into [0, 1]."""
    from sklearn.manifold import TSNE

    both = np.concatenate([photos, flats])
    perplexity = min(30.0, (len(both) - 1) / 3)
    # The approximation pays from thousands of points on, and its threads crawl where cores are busy.
    method = "exact" if len(both) <= 1000 else "barnes_hut"
    model = TSNE(perplexity=perplexity, metric="cosine", init="random", method=method, random_state=seed)
    plane = model.fit_transform(both)
    low, high = plane.min(axis=0), plane.max(axis=0)
    plane = (plane - low) / np.maximum(high - low, 1e-9)
    return plane[: len(photos)], plane[len(photos) :]
