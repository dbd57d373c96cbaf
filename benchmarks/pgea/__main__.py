"""PGEA (R 3.3) from one end to the other in the tiny world: 4 channels to 16, and what each stage gives.

    python -m benchmarks.pgea --work runs/pgea --data DATA [--only logos residuals starts kid] [--scale 0.1]

From the repository's root. DATA: a data set of `ragdiff data synth`. Trains what a figure needs and isn't there yet
(the same command goes on with what was interrupted), then prints one JSON object a figure: logos (reconstruction
inside the logo's box), residuals (conv_in by the closed form and by 20,000 gradient steps), starts (the loss that stage
II begins with), kid (flat-lays from captions after stage III). Pictures: WORK/logos.png, WORK/captions.png.
At --scale 1 about an hour on two cores.
"""

import argparse
import json
import time
from pathlib import Path

from benchmarks.pgea.figures import FIGURES, NEEDS
from benchmarks.pgea.stages import Stages
from ragdiff_jax.data.images import write_atomic
from ragdiff_jax.parallel import enable_compilation_cache

ASSETS = Path(__file__).parents[2] / "ragdiff_jax" / "assets" / "tiny"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--work", type=Path, required=True)
    add("--data", type=Path, required=True)
    add("--decoded", type=Path, help="keeps the decoded pairs (default WORK/decoded)")
    add("--only", nargs="+", choices=FIGURES, default=list(FIGURES))
    add("--scale", type=float, default=1.0, help="of the numbers of steps (default 1)")
    arguments = parser.parse_args()
    decoded = arguments.decoded or arguments.work / "decoded"
    stages = Stages(arguments.work, arguments.data, decoded, ASSETS, arguments.scale)
    enable_compilation_cache()
    for name in arguments.only:
        for stage in NEEDS[name]:
            stages.train(stage)
        start = time.perf_counter()
        record = {"figure": name, "scale": arguments.scale, **FIGURES[name](stages)}
        record["seconds"] = round(time.perf_counter() - start, 1)
        write_atomic(arguments.work / f"{name}.json", json.dumps(record).encode())
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
