"""Several processes, and what they compile once."""

import os
from pathlib import Path

import jax
import numpy as np

from ragdiff_jax.errors import UserError


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
        jax.distributed.initialize(coordinator_address=coordinator, num_processes=num, process_id=id)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"can't join the processes: {error}; give coordinator, num and id") from error


def agree(*flags: bool) -> tuple[bool, ...]:
    """Each flag, true on every process if it is true on any. Every process calls it at the same point."""
    if jax.process_count() == 1:
        return flags
    from jax.experimental import multihost_utils

    return tuple(
        bool(x) for x in multihost_utils.process_allgather(np.array([flags])).reshape(-1, len(flags)).any(0)
    )


def barrier(name: str) -> None:
    """Wait until every process is here."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


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
