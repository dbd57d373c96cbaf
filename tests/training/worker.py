"""A run of its own, to be killed or doubled: `worker.py JSON` with what to do."""

import json
import os
import sys
from pathlib import Path

import jax
from toy import Toy

from ragdiff_jax.cli.inputs import trace_undisturbed
from ragdiff_jax.errors import UserError
from ragdiff_jax.parallel import enable_compilation_cache, initialize_processes, make_mesh
from ragdiff_jax.training import TrainSettings, train


def main(arguments):
    trace_undisturbed()
    jax.config.update("jax_num_cpu_devices", arguments["devices"])
    if arguments.get("processes"):
        initialize_processes(**arguments["processes"])
    enable_compilation_cache(arguments["cache"])
    devices = jax.devices()[: arguments["use"]] if "use" in arguments else None
    if "order" in arguments:
        devices = [jax.devices()[number] for number in arguments["order"]]
    mesh = make_mesh(**arguments.get("mesh", {}), devices=devices)
    if "stages" in arguments:
        import rag_world

        for name in arguments["stages"]:
            workdir = Path(arguments["workdir"]) / name
            result = train(rag_world.STAGES[name](), workdir, TrainSettings(**arguments["settings"]), mesh)
        print(json.dumps({"step": result.step, "finished": result.finished}), flush=True)
        return
    if "world" in arguments:
        import rag_world

        objective = rag_world.objective(Path(arguments["world"]))
    else:
        objective = Toy(**arguments.get("toy", {}))
    if "most_bytes" in arguments:  # as a full disk: no file may grow above this
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (arguments["most_bytes"],) * 2)
    result = train(objective, arguments["workdir"], TrainSettings(**arguments["settings"]), mesh)
    print(json.dumps({"step": result.step, "finished": result.finished}), flush=True)


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
        assert "torch" not in sys.modules, "training imports torch"
    except UserError as error:  # as the command does
        print(f"ragdiff: {error}", file=sys.stderr, flush=True)
        os._exit(2)
