"""Several processes, and what they compile once."""

import collections
import contextlib
import glob
import hashlib
import importlib.util
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ragdiff_jax.errors import UserError


def found_cluster() -> str | None:
    """What says that this process is one of several (or the only one of a TPU host), None if nothing does.

    Not the shell of a Slurm batch script: only what `srun` starts is a task.
    """
    env = os.environ
    if int(env.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        return "Slurm"
    if int(env.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
        return "Open MPI"
    if len(env.get("TPU_WORKER_HOSTNAMES", "").split(",")) > 1:
        return "Kubernetes (TPU)"
    if env.get("KUBERNETES_SERVICE_HOST") and env.get("JOB_COMPLETION_INDEX"):
        return "Kubernetes"
    if _on_tpu_host() and importlib.util.find_spec("libtpu"):
        return "Cloud TPU"
    return None


def _on_tpu_host() -> bool:
    """Whether a PCI device is Google's, as JAX asks too: accelerators of others have files in /dev/accel as well."""
    for file in glob.glob("/sys/bus/pci/devices/*/vendor"):
        with contextlib.suppress(OSError):
            if Path(file).read_text().strip() == "0x1ae0":
                return True
    return False


def join_processes(coordinator: str | None = None, num: int | None = None, id: int | None = None) -> None:
    """`initialize_processes` if the three are given or a cluster is found; alone, nothing."""
    if any(x is not None for x in (coordinator, num, id)) or found_cluster():
        initialize_processes(coordinator, num, id)


def initialize_processes(
    coordinator: str | None = None, num: int | None = None, id: int | None = None
) -> None:
    """Join the processes of one run. Call it before any other use of jax.

    Without arguments the cluster is found out (Slurm, Open MPI, Kubernetes, Cloud TPU). A failure stops the
    run: processes that go on alone would train as many separate models.

    Args:
        coordinator: `host:port` of process 0.
        num: number of processes.
        id: number of this process, from 0.

    Raises:
        UserError: some of the three are missing, or the processes can't be joined.
    """
    given = (coordinator, num, id)
    if any(x is None for x in given) and any(x is not None for x in given):
        raise UserError(
            f"coordinator={coordinator}, num={num}, id={id}: give all three, or none to find out the cluster"
        )
    try:
        jax.distributed.initialize(
            coordinator_address=coordinator,
            num_processes=num,
            process_id=id,
            local_device_ids=_cards(),
            initialization_timeout=int(os.environ.get("RAGDIFF_JOIN_SECONDS", 300)),
            shutdown_timeout_seconds=60,
        )
    except (RuntimeError, ValueError) as error:
        where = "" if coordinator else f" (found: {found_cluster()})"
        raise UserError(
            f"can't join the processes{where}: {' '.join(str(error).split())[:300]}; give --coordinator HOST:PORT, "
            "--processes and --process"
        ) from error


def _cards() -> list[int] | None:
    """For `jax.distributed.initialize`: [] where this task is alone on its node, else None.

    Left to itself JAX shows a task of Slurm or Open MPI one card, that of its local rank, as if there were a task for
    each. An empty list stops that and hides nothing.
    """
    env = os.environ
    if env.get("JAX_LOCAL_DEVICE_IDS"):  # the user's own choice
        return None
    local = env.get("OMPI_COMM_WORLD_LOCAL_SIZE")  # first: mpirun's own step under Slurm has one task a node
    if local is not None:
        return [] if int(local) == 1 else None
    tasks, nodes = env.get("SLURM_STEP_NUM_TASKS"), env.get("SLURM_STEP_NUM_NODES")
    return [] if tasks is not None and tasks == nodes else None


def agree(*flags: bool) -> tuple[bool, ...]:
    """Each flag, true on every process if it is true on any. Every process calls it at the same point."""
    if jax.process_count() == 1:
        return flags
    from jax.experimental import multihost_utils

    return tuple(
        bool(x) for x in multihost_utils.process_allgather(np.array([flags])).reshape(-1, len(flags)).any(0)
    )


def from_first_process(value: int) -> int:
    """What the first process says, on every process. Every process calls it at the same point."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


_passed: collections.Counter[str] = collections.Counter()


def barrier(name: str, minutes: int = 60) -> None:
    """Wait until every process is here. Through the coordination service: the devices take no part."""
    if jax.process_count() > 1:
        from jax._src import distributed  # its client has no public door

        _passed[name] += 1
        distributed.global_state.client.wait_at_barrier(f"ragdiff/{name}/{_passed[name]}", minutes * 60_000)


def same_everywhere(config: Mapping[str, Any]) -> None:
    """Refuse to go on where processes were started with different configs (nested dicts of JSON values).

    Raises:
        UserError: on every process the same message, which names the first field that differs.
    """
    if jax.process_count() == 1:
        return
    from jax.experimental import multihost_utils

    own = json.dumps(config, sort_keys=True).encode()
    digests = multihost_utils.process_allgather(np.frombuffer(hashlib.sha256(own).digest(), np.uint8))
    other = np.flatnonzero((digests != digests[0]).any(axis=1))
    if not other.size:
        return
    lengths = multihost_utils.process_allgather(np.int32(len(own)))
    padded = np.frombuffer(own.ljust(int(lengths.max())), np.uint8)
    texts = multihost_utils.process_allgather(padded)
    first, second = (json.loads(bytes(texts[row]).decode()) for row in (0, int(other[0])))
    name, mine, theirs = _first_difference(first, second)
    raise UserError(
        f"the processes were started with different configs: {name} is {mine!r} in process 0 and {theirs!r} in "
        f"process {int(other[0])}; start all with the same files and flags"
    )


def _first_difference(a: Any, b: Any, prefix: str = "") -> tuple[str, Any, Any]:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in sorted(a.keys() | b.keys()):
            if a.get(key) != b.get(key):
                return _first_difference(a.get(key), b.get(key), f"{prefix}.{key}" if prefix else key)
    return prefix, a, b


def preempted(step: int) -> bool:
    """Whether all processes are to save and stop after this step, because one of them got SIGTERM.

    Asked at every step by every process; costs nothing while nobody is told to stop. Alone: False.
    """
    if jax.process_count() == 1:
        return False
    from jax.experimental import multihost_utils

    return multihost_utils.reached_preemption_sync_point(step)


def enable_compilation_cache(directory: str | os.PathLike | None = None) -> Path:
    """Keep compiled programs on disk, so that the second start of the same command doesn't compile.

    The folder is `directory`, else the environment's RAGDIFF_CACHE, else `~/.cache/ragdiff_jax`; programs go
    to its `xla`. Returns that folder.
    """
    root = directory or os.environ.get("RAGDIFF_CACHE") or Path.home() / ".cache" / "ragdiff_jax"
    path = Path(root).expanduser() / "xla"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"can't write the compilation cache {path} ({error.strerror}); set RAGDIFF_CACHE"
        ) from error
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    return path
