"""A run of its own, to be killed or doubled: `worker.py JSON` with what to do."""

import json
import sys

import jax
from toy import Toy

from ragdiff_jax.parallel import enable_compilation_cache, initialize_processes, make_mesh
from ragdiff_jax.training import TrainSettings, train


def main(arguments):
    jax.config.update("jax_num_cpu_devices", arguments["devices"])
    if arguments.get("processes"):
        initialize_processes(**arguments["processes"])
    enable_compilation_cache(arguments["cache"])
    devices = jax.devices()[: arguments["use"]] if "use" in arguments else None
    mesh = make_mesh(**arguments.get("mesh", {}), devices=devices)
    result = train(
        Toy(**arguments.get("toy", {})), arguments["workdir"], TrainSettings(**arguments["settings"]), mesh
    )
    print(json.dumps({"step": result.step, "finished": result.finished}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
