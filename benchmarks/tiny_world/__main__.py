"""What trained model folders do: retrieval and its bound, generation by ablations, control, growth, real photos.

    python -m benchmarks.tiny_world --out out/world --dataset DATA --memory MEMORY --model shipped=DIR
    python -m benchmarks.tiny_world --out out/world --dataset DATA --memory MEMORY \\
        --model full=DIR --model vanilla=DIR --model embedding=DIR --model silhouette=DIR --only generation
    python -m benchmarks.tiny_world --out out/world --dataset DATA --tops-model DIR --only growth
    RAGDIFF_REAL_DATA=DIR python -m benchmarks.tiny_world --out out/world --model shipped=DIR --only real

From the repository's root. Prints one JSON object a line, writes OUT/SECTION.json for each section (one that is there
with the same settings and weights is kept), sheets of pictures, and OUT/summary.md. GrabCut in `real` is OpenCV's: pip
install opencv-python-headless; without it that column is absent.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import jax

from benchmarks.tiny_world import bound, control, generation, growth, real, retrieval
from benchmarks.tiny_world.growth import OTHERS
from benchmarks.tiny_world.real import held_out_names
from benchmarks.tiny_world.summary import markdown
from benchmarks.tiny_world.world import GATES, World, content
from ragdiff_jax.cli.inputs import model_folder
from ragdiff_jax.data.images import write_atomic
from ragdiff_jax.errors import UserError
from ragdiff_jax.parallel import enable_compilation_cache

# Of each section: the program, and the arguments that its numbers depend on beside the weights.
SECTIONS = {
    "retrieval": (retrieval.run, ("dataset", "split", "pairs", "seed", "clip")),
    "bound": (bound.run, ("dataset", "split", "pairs", "seed")),
    "generation": (generation.run, ("dataset", "split", "pairs", "steps", "seed", "batch")),
    "control": (control.run, ("dataset", "split", "pairs", "control_photos", "steps", "seed", "batch")),
    "growth": (
        growth.run,
        "dataset split memory_split pairs growth_tops growth_added others size seed clip".split(),
    ),
    "real": (real.run, ("real_held_out", "real_limit", "wild_limit", "steps", "seed", "batch")),
}


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m benchmarks.tiny_world",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = found.add_argument
    add("--out", type=Path, required=True)
    add("--only", action="append", choices=SECTIONS, help="this section (default: all); may stand more than once")
    add("--again", action="store_true", help="measure sections anew that are there")
    add("--model", action="append", metavar="NAME=DIR", help=f"NAME is one of {', '.join(GATES)}")
    add("--memory", action="append", metavar="[NAME=]DIR", help="of all models, or of one (default: the shipped one)")
    add("--dataset", type=Path, metavar="DIR", help="a prepared data set of drawn garments")
    add("--split", default="test", help="its held-out split (default %(default)s)")
    add("--memory-split", default="train", help="its split that memories of `growth` are made of")
    add("--clip", type=Path, metavar="DIR", help="model folder that predicts attributes in retrieval and growth")
    add("--pairs", type=int, default=512, help="held-out pairs (default %(default)s)")
    add("--steps", type=int, default=30, help="of DDIM (default %(default)s)")
    add("--seed", type=int, default=0, help="of noise, bootstrap and what is done to photos (default %(default)s)")
    gpu = jax.default_backend() != "cpu"
    add("--batch", type=int, default=256 if gpu else 16, help="photos at a time (default here: %(default)s)")
    add("--control-photos", type=int, default=50, help="photos of `control` (default %(default)s)")
    add("--tops-model", type=Path, metavar="DIR", help="structure_net that saw tops only")
    add("--tops-memory", type=Path, metavar="DIR", help="its memory (default: made of the data set)")
    add("--growth-tops", type=int, default=4000, help="tops in the memory made (default %(default)s)")
    add("--growth-added", type=int, default=856, help="bottoms and dresses added (default %(default)s)")
    add("--others", nargs="+", default=list(OTHERS), metavar="CATEGORY", help="(default %(default)s)")
    add("--size", type=int, help="pixels of `growth`, where neither its model nor --tops-memory says it")
    add("--real-held-out", type=Path, metavar="FILE", help="names of pairs that training didn't see")
    add("--real-limit", type=int, default=None, help="so many of those pairs (default: all)")
    add("--wild-limit", type=int, default=None, help="so many wild photos (default: all)")
    return found


def main() -> int:
    arguments = parser().parse_args()
    try:
        world, failed = World(arguments), False
    except UserError as error:
        parser().error(str(error))
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        enable_compilation_cache()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for section in arguments.only or SECTIONS:
        run, names = SECTIONS[section]
        file = arguments.out / f"{section}.json"
        try:
            settings = _settings(world, section, names)
            record = json.loads(file.read_text()) if file.is_file() and not arguments.again else None
            if record is None or record["settings"] != settings:
                start = time.perf_counter()
                found = run(world)
                device = jax.devices()[0].device_kind
                seconds = round(time.perf_counter() - start, 1)
                record = {"section": section, "settings": settings, "seconds": seconds, "device": device, **found}
                write_atomic(file, json.dumps(record, indent=1).encode())
        except UserError as error:
            # The other sections may have all that they need.
            print(json.dumps({"section": section, "error": str(error)}), flush=True)
            failed = True
            continue
        for row in record["rows"]:
            print(json.dumps({"section": section, **row}), flush=True)
        _summarise(arguments.out)
    return int(failed)


def _settings(world: World, section: str, names) -> dict:
    """What decides a section's numbers; of folders their contents or, for the data set, its own name."""
    given = vars(world.arguments)
    found = {name: given[name] for name in names}
    if found.get("dataset") is not None:
        found["dataset"] = "/".join(found["dataset"].resolve().parts[-3:])
    if found.get("real_held_out") is not None:
        found["real_held_out"] = held_out_names(found["real_held_out"])
    if found.get("clip") is not None:
        found["clip"] = content(model_folder(found["clip"]))
    if section == "growth":
        own = {
            "tops_model": given["tops_model"] and model_folder(given["tops_model"]),
            "tops_memory": given["tops_memory"],
        }
        return found | {name: None if path is None else content(path) for name, path in own.items()}
    models = world.models if section == "generation" else {world.main: world.models[world.main]}
    for name, folder in models.items():
        found[name] = f"{content(folder)} with memory {content(world.memory_path(name))}"
    return found


def _summarise(out: Path) -> None:
    """Of all sections that are there, also of those of earlier calls."""
    files = {section: out / f"{section}.json" for section in SECTIONS}
    records = {section: json.loads(file.read_text()) for section, file in files.items() if file.is_file()}
    write_atomic(out / "summary.md", markdown(records).encode())


if __name__ == "__main__":
    sys.exit(main())
