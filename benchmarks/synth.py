"""SynthGarments: how fast it is drawn, how different its silhouettes are, how often each category comes.

    python benchmarks/synth.py [--count 1024] [--size 128] [--pairs 40]

Prints one JSON object a line: records a second with one process and with two (whole records: garment, photo, encoding)
and milliseconds of processor time that the garment's own part takes, in each style; the mean IoU of the silhouettes of
two random garments of a category (flat-lays of 64 pixels); the share of each category in what is drawn.
"""

import argparse
import collections
import itertools
import json
import statistics
import tempfile
import time

from ragdiff_jax.data.synth import CATEGORIES, STYLES, garment_spec, render_flat, synth_spec


def records_a_second(count: int, size: int, processes: int) -> float:
    """Drawing and writing a data set, processes started and TFDS's own work included."""
    from ragdiff_jax.data.synth_dataset import prepare_synth  # here, for each process imports this file

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        prepare_synth(folder, count=count, size=size, processes=processes)
        return count / (time.perf_counter() - start)


def garment_milliseconds(count: int, size: int, style: str) -> float:
    specs = [synth_spec(index) for index in range(count)]
    render_flat(specs[0], size, style=style)
    start = time.process_time()
    for spec in specs:
        render_flat(spec, size, style=style)
    return 1e3 * (time.process_time() - start) / count


def silhouette_iou(category: str, garments: int, *, extreme: bool = False) -> float:
    masks = [render_flat(garment_spec(seed, category, extreme=extreme), 64)[1] for seed in range(garments)]
    return statistics.mean((a & b).sum() / (a | b).sum() for a, b in itertools.combinations(masks, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1024, help="records drawn for the speeds (default %(default)s)")
    parser.add_argument("--size", type=int, default=128, help="pixels a side (default %(default)s)")
    parser.add_argument("--pairs", type=int, default=40, help="garments compared a category (default %(default)s)")
    arguments = parser.parse_args()
    for style in STYLES:
        spent = garment_milliseconds(arguments.count, arguments.size, style)
        print(json.dumps({"garment_ms": round(spent, 2), "style": style, "size": arguments.size}), flush=True)
    for processes in (1, 2):
        speed = records_a_second(arguments.count, arguments.size, processes)
        print(json.dumps({"records_s": round(speed, 1), "processes": processes, "size": arguments.size}), flush=True)
    for extreme in (False, True):
        ious = {name: silhouette_iou(name, arguments.pairs, extreme=extreme) for name in CATEGORIES}
        line = {"mean_iou": round(statistics.mean(ious.values()), 3), "extreme": extreme}
        print(json.dumps(line | {"by_category": {name: round(iou, 3) for name, iou in ious.items()}}), flush=True)
    seen = collections.Counter(synth_spec(index).category for index in range(2000))
    print(json.dumps({"share": {name: round(seen[name] / 2000, 3) for name in CATEGORIES}}))


if __name__ == "__main__":
    main()
