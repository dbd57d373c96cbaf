"""Draw data in several processes: records in order, one pool for all splits."""

import collections
import concurrent.futures.process
import functools
import itertools
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import tqdm

from ragdiff_jax.errors import UserError

_AHEAD = 4  # items a process
_CHUNK = 16  # records a worker draws at a time: few enough that all end together, an even number for twins


def usable_cores() -> int:
    """How many of the machine's cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def end_with_parent() -> None:
    """A worker's initializer: it ends when the process that started it has, however that ended.

    A pool tells its workers to end; one that is killed can't, and they would wait for work for ever.
    """

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def map_processes(function: Callable, items, processes: int) -> Iterator[Any]:
    """`map`, in order, by this many processes. `function` is a module's, or a partial of one.

    Workers are at most a few items ahead of who takes the results, so that these don't fill the memory. Raises
    `UserError` where a worker is killed.
    """
    if processes <= 1:
        yield from map(function, items)
        return
    # Not fork: the parent may already run JAX's threads.
    context = multiprocessing.get_context("forkserver")
    # Imported once, by the server; every worker would import it again.
    named = function.func if isinstance(function, functools.partial) else function
    context.set_forkserver_preload([named.__module__])
    waiting: collections.deque[concurrent.futures.Future] = collections.deque()
    with concurrent.futures.ProcessPoolExecutor(processes, context, end_with_parent) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > _AHEAD * processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except concurrent.futures.process.BrokenProcessPool as error:
            raise UserError("a worker process was killed, as for want of memory; use fewer --processes") from error
        finally:
            for future in waiting:
                future.cancel()


def drawn_splits(
    draw: Callable, to_example: Callable, splits, processes: int, things: str
) -> dict[str, Iterator[tuple[int, dict]]]:
    """What TFDS writes: for each (name, start, stop) of `splits` its rows' numbers and examples.

    `draw` maps (split, start, stop) to records whose ids end with "-" and the row. The splits share one pool, since
    processes take long to start, so they must be read in order; TFDS does.
    """
    chunks = [(name, at, min(at + _CHUNK, stop)) for name, start, stop in splits for at in range(start, stop, _CHUNK)]
    records = itertools.chain.from_iterable(map_processes(draw, chunks, processes))
    return {name: _examples(records, to_example, name, stop - start, things) for name, start, stop in splits}


def _examples(records, to_example, split: str, count: int, things: str) -> Iterator[tuple[int, dict]]:
    rows = itertools.islice(records, count)
    for record in tqdm.tqdm(rows, total=count, desc=f"drawing {split}", unit=f" {things}", disable=None):
        if record.split != split:
            raise RuntimeError(f"a record of {record.split!r} came where {split!r} is read; read splits in order")
        yield int(record.id.rsplit("-", 1)[1]), to_example(record)
