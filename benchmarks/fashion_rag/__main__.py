"""Fashion-RAG's figures in the tiny world: how many garments, wrong ones, conflicting ones, many; retrieval.

    python -m benchmarks.fashion_rag --out out/fashion --people PEOPLE --memory GARMENTS --tower TOWER/model
    python -m benchmarks.fashion_rag ... --only models --against detail=RUN/model --against longer=RUN/model
    RAGDIFF_REAL_DATA=DIR python -m benchmarks.fashion_rag --out out/fashion --only people --only thumbnails

From the repository's root. PEOPLE: `ragdiff data people`; GARMENTS: `ragdiff memory build --dataset PEOPLE` with the
model; TOWER: the `clip` stage with another seed (configs/clip/garments.py), which measures and takes no part
in conditioning. Prints one JSON object a section and writes it to OUT/SECTION.json, with sheets of pictures.
"""

import argparse
import json
import os
import time
from pathlib import Path

from benchmarks.fashion_rag import garments, models, people, retrieval, thumbnails
from ragdiff_jax.data.images import write_atomic
from ragdiff_jax.parallel import enable_compilation_cache

ASSETS = Path(__file__).parents[2] / "ragdiff_jax" / "assets"
SECTIONS = {
    "number": garments.number,
    "random": garments.random,
    "divergent": garments.divergent,
    "many": garments.many,
    "models": models.run,
    "retrieval": retrieval.run,
    "people": people.run,
    "thumbnails": thumbnails.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, required=True)
    add("--only", action="append", choices=SECTIONS, help="this section (default: all); may stand more than once")
    add("--model", type=Path, default=ASSETS / "fashion_rag")
    add("--memory", type=Path, help="garments to retrieve from; people: any memory of flat-lays")
    add("--people", type=Path, help="a data set of people")
    add("--split", default="test,validation", help="its held-out splits (default %(default)s)")
    add("--tower", type=Path, help="model folder of a clip stage that took no part")
    add("--count", type=int, default=512, help="people (default %(default)s)")
    add("--steps", type=int, default=20)
    add("--batch", type=int, default=16)
    add("--seed", type=int, default=0)
    add("--against", action="append", default=[], type=models.named, metavar="NAME=DIR", help="`models`: another model")
    add("--method", action="append", choices=garments.METHODS, help="`random`: this one beside plain (default: all)")
    add("--reject-below", type=float, help="`random`: the floor (default: what 95 of 100 retrieved garments have)")
    add("--trained", type=int, default=400, help="steps that `thumbnails` trains its towers")
    arguments = parser.parse_args()
    if "models" in (arguments.only or ()) and not arguments.against:
        parser.error("--only models: name another model with --against NAME=DIR")
    sections = arguments.only or [name for name in SECTIONS if name != "models" or arguments.against]
    arguments.out.mkdir(parents=True, exist_ok=True)
    arguments.real = os.environ.get("RAGDIFF_REAL_DATA")
    enable_compilation_cache()
    for name in sections:
        start = time.perf_counter()
        record = {"section": name, **SECTIONS[name](arguments)}
        record["seconds"] = round(time.perf_counter() - start, 1)
        text = json.dumps(record)
        write_atomic(arguments.out / f"{name}.json", text.encode())
        print(text, flush=True)


if __name__ == "__main__":
    main()
