"""Which records are of one garment's structure: they depend on one another, and are drawn together by the bootstrap."""

from collections.abc import Sequence

import numpy as np


def twin_groups(ids: Sequence[str], partners: Sequence[str | None]) -> tuple[str, ...]:
    """Of each record the least id of all that it is tied to, directly or through others, by structure partners.

    `partners`: of each record the id of its partner, which need not be mutual, nor among `ids`; None or empty: alone.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    others = [other or own for own, other in zip(ids, partners, strict=True)]
    names, places = np.unique([*ids, *others], return_inverse=True)
    own, other = places.reshape(2, -1)
    links = coo_array((np.ones(len(own), np.int8), (own, other)), shape=(len(names), len(names)))
    labels = connected_components(links, directed=False)[1]
    first = dict(zip(labels[::-1].tolist(), names[::-1].tolist(), strict=True))  # names are sorted: the least stays
    return tuple(first[label] for label in labels[own].tolist())
