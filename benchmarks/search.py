r"""Nearest neighbours on this machine: the searchers that ship beside faiss, where it is installed (no dependency).

    python benchmarks/search.py                              # 4,000 and 100,000 rows of 768
    pip install faiss-cpu; python benchmarks/search.py --rows 4000 8000 100000

The data are clustered unit vectors; queries are rows with noise of length 0.3. One query at a time, after 50 that don't
count; recall is of the four nearest against the exact ones. One line of JSON for each library, index and size.
"""

import argparse
import json
import os
import time

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[4_000, 100_000])
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--k", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for rows in arguments.rows:
        database, queries = data(rows, arguments.dim, arguments.queries, arguments.seed)
        truth = np.concatenate(
            [np.argsort(-(q @ database.T), axis=1)[:, : arguments.k] for q in np.array_split(queries, 20)]
        )
        for name, build in {**ours(), **faiss_indices()}.items():
            start = time.perf_counter()
            search = build(database)
            built = time.perf_counter() - start
            print(json.dumps({"rows": rows, "index": name, **measured(search, queries, truth, arguments.k, built)}))


def data(rows: int, dim: int, count: int, seed: int):
    """(database, queries), unit rows float32: as many clusters as 20 rows fill."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(1, rows // 20), dim)).astype(np.float32)
    database = centres[rng.integers(0, len(centres), rows)] + rng.normal(size=(rows, dim)).astype(np.float32) * 0.7
    database /= np.linalg.norm(database, axis=1, keepdims=True)
    noise = rng.normal(size=(count, dim)).astype(np.float32)
    queries = database[rng.integers(0, rows, count)] + 0.3 * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    return database, queries / np.linalg.norm(queries, axis=1, keepdims=True)


def ours():
    """The searchers of this package as name -> build(database) -> search(query [1,d], k) -> rows [1,k]."""
    from ragdiff_jax.retrieval import make_searcher

    def build(kind):
        def make(database):
            searcher = make_searcher(kind, database)
            return lambda query, k: np.asarray(searcher.search(query, k)[0])

        return make

    return {"ragdiff auto": build("auto"), "ragdiff exact": build("exact"), "ragdiff scann": build("scann")}


def faiss_indices():
    """faiss' flat and HNSW indices of inner product; none where faiss isn't installed."""
    try:
        import faiss
    except ImportError:
        print(json.dumps({"index": "faiss", "note": "not installed: pip install faiss-cpu to see it here"}))
        return {}

    def flat(database):
        index = faiss.IndexFlatIP(database.shape[1])
        index.add(database)
        return lambda query, k: index.search(query, k)[1]

    def hnsw(database):
        index = faiss.IndexHNSWFlat(database.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = 100, 64
        index.add(database)
        return lambda query, k: index.search(query, k)[1]

    return {"faiss flat": flat, "faiss HNSW32 ef64": hnsw}


def measured(search, queries, truth, k: int, built: float) -> dict:
    """Times in milliseconds, and recall."""
    for query in queries[:50]:
        search(query[None], k)
    seconds, found = [], []
    for query in queries:
        start = time.perf_counter()
        rows = search(query[None], k)
        seconds.append(time.perf_counter() - start)
        found.append(rows[0])
    search(queries[:256], k)  # compiles for this number of queries
    batches = []
    for _ in range(5):
        start = time.perf_counter()
        search(queries[:256], k)
        batches.append(time.perf_counter() - start)
    hits = [len(set(map(int, a)) & set(map(int, b))) / k for a, b in zip(found, truth, strict=True)]
    return {
        "p50_ms": round(1e3 * float(np.percentile(seconds, 50)), 3),
        "p99_ms": round(1e3 * float(np.percentile(seconds, 99)), 3),
        "batch_of_256_ms": round(1e3 * float(np.median(batches)), 1),
        "recall": round(float(np.mean(hits)), 4),
        "build_s": round(built, 2),
        "load": round(os.getloadavg()[0], 1),
    }


if __name__ == "__main__":
    main()
