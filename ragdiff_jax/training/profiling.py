"""A few steps traced for xprof (`pip install xprof; xprof DIR`)."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jax


class Profiler:
    """Traces `steps` steps from number `first` on into `directory`; with 0 it does nothing."""

    def __init__(self, directory: Path, *, first: int, steps: int):
        self._directory, self._first, self._last = directory, first, first + steps - 1
        self._running = False

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Around the step of that number."""
        if number == self._first and self._last >= self._first:
            jax.profiler.start_trace(str(self._directory))
            self._running = True
        elif self._running and number > self._last:
            self.close()
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield

    def close(self) -> None:
        """Write the trace, if one runs."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
