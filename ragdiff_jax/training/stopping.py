"""How a run is asked to stop: SIGTERM (a scheduler takes the machine back) and SIGINT (Ctrl-C)."""

import contextlib
import signal
from collections.abc import Iterator

import jax

from ragdiff_jax.parallel import agree, preempted


class StoppedEarly(BaseException):
    """A signal before the first step of a run of one process: there is nothing to save yet."""


class Signals:
    """Both ask the loop to save and stop; a second SIGINT stops at once.

    Before the first step, where encoding and compiling may take hours, they end a run of one process by `StoppedEarly`.
    Several processes must stop at one step. SIGTERM, even to one of them, then goes through JAX's preemption service,
    which agrees on the step without the devices; Ctrl-C is asked about at the step lines.
    """

    def __init__(self):
        self.stop: str | None = None
        self.stepped = jax.process_count() > 1  # several processes can't stop alone
        self.step = 0  # that the run goes on from

    def _handle(self, number, frame):
        del frame
        if self.stop is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.stop = signal.Signals(number).name
        if not self.stepped:
            raise StoppedEarly

    @contextlib.contextmanager
    def installed(self) -> Iterator["Signals"]:
        # The service has its own handler of SIGTERM, which must not be replaced.
        numbers = (signal.SIGINT,) if jax.process_count() > 1 else (signal.SIGTERM, signal.SIGINT)
        try:
            old = {number: signal.signal(number, self._handle) for number in numbers}
        except ValueError:  # not the main thread: whoever runs it there takes the signals
            old = {}
        try:
            yield self
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def asked(self, step: int, every: int, *flags: bool) -> tuple[bool, ...]:
        """(stop after this step, each of `flags`), the same on every process.

        Flags (clocks differ between processes) are asked about every `every` steps (0: 50).
        """
        if jax.process_count() == 1:
            return self.stop is not None, *flags
        if preempted(step):
            self.stop = "SIGTERM"
            return True, *(False for _ in flags)
        if step % (every or 50):
            return False, *(False for _ in flags)
        stop, *rest = agree(self.stop == "SIGINT", *flags)
        if stop:
            self.stop = "SIGINT"
        return stop, *rest
