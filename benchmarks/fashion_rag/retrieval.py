"""Garments by text in the drawn world: with the target in the database, and without it."""

import numpy as np

from benchmarks.fashion_rag.garments import opened
from ragdiff_jax.data.person_records import retrieval_query
from ragdiff_jax.retrieval.categories import CategorySearcher
from ragdiff_jax.systems.text_retrieval import embed_garments, embed_texts, retrieval_metrics

KS = (1, 3, 5, 10, 20)


def run(arguments):
    """Relevant are garments with the query's own first chunk (kind, print and colours), within the category."""
    world = opened(arguments)
    model, editor = world.editor.model, world.editor
    queries = [retrieval_query(record.chunks) for record in world.records]
    texts = embed_texts(model, editor.params, editor.tokenizer, queries)
    categories = [record.category for record in world.records]
    items = world.database.memory.items
    first = [str(item.metadata["caption"]).split(", ")[0] for item in items]
    own = [record.chunks[0] for record in world.records]
    relevant = np.array([[a == b for b in first] for a in own])
    kinds = [item.metadata["category"] for item in items]
    searcher = CategorySearcher(world.database.memory.embeddings, kinds)
    within = np.array([[a == b for b in kinds] for a in categories])  # what is searched
    chance = (relevant & within).sum(axis=1) / np.maximum(within.sum(axis=1), 1)
    found, _ = searcher.search(texts, categories, max(KS))
    # The released test database holds the targets: the people's own garments as the database.
    from ragdiff_jax.data.person_garments import garment_square

    squares = (garment_square(g, model.image_encoder.image_size, model.garment_fit) for g in world.own)
    vectors = embed_garments(model, editor.params, squares)
    sizes = np.array([categories.count(category) for category in categories])
    ranked, _ = CategorySearcher(vectors, categories).search(texts, categories, min(max(KS), sizes.min()))
    target = np.eye(len(categories), dtype=bool)
    return {
        "queries": len(queries),
        "without_target": {
            "database_split": "train", "target_excluded": True, "garments": len(items),
            "queries_with_a_relevant_garment": int(relevant.any(axis=1).sum()),
            **retrieval_metrics(found, relevant, KS),
            "chance_precision": float(chance[relevant.any(axis=1)].mean()),
        },
        "with_target": {
            "database_split": "the people's own", "target_excluded": False, "garments": len(categories),
            **{k: v for k, v in retrieval_metrics(ranked, target, KS).items() if k.startswith("recall")},
            "chance_recall@1": float((1 / sizes).mean()),
        },
    }  # fmt: skip
