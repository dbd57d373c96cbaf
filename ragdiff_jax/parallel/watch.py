"""Several processes that end as one: the failure of one is the message of all.

A process that waits in a collective for one that died would wait for ever. So each has a thread that says every few
seconds that it lives, reads whether another has failed or fallen silent, and in that case ends its process with one
line. The messages go through the coordination service that `jax.distributed` runs anyway.
"""

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator

import jax

from ragdiff_jax.errors import UserError

FAILED, ALIVE = "ragdiff/failed", "ragdiff/alive/"
EVERY = 2.0
_LOST_WORDS = ("gloo", "connection closed", "connection reset", "coordination service", "heartbeat", "nccl", "by peer")


def _client():
    from jax._src import distributed  # the only door to the service's key-value store

    return distributed.global_state.client


def _say_and_end(message: str) -> None:
    print(f"ragdiff: {message}", file=sys.stderr, flush=True)
    os._exit(2)


class _Watch:
    def __init__(self, client):
        self._client, self._me, self._count = client, jax.process_index(), jax.process_count()
        self._name = f"process {self._me} of {self._count} ({socket.gethostname()})"
        # A process that compiles may be silent for a while on a busy machine.
        self._lost_after = float(os.environ.get("RAGDIFF_LOST_SECONDS", 60))
        self._seen: dict[str, tuple[str, float]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        beat = 0
        while not self._stop.wait(EVERY):
            beat += 1
            try:
                self._client.key_value_set(f"{ALIVE}{self._me}", f"{self._name}|{beat}", allow_overwrite=True)
                message = self.failure()
                lost = None if message else self._lost()
            except Exception:  # the service ends with process 0
                if self._stop.wait(EVERY):
                    return
                message, lost = "process 0, which joins the others, can't be reached any more", None
            if message and not self._stop.is_set():
                _say_and_end(f"{message}; the last checkpoint is intact, the same command goes on")
            if lost:
                self.publish(lost)
                _say_and_end(f"{lost}; the last checkpoint is intact, the same command goes on")

    def _lost(self) -> str | None:
        now = time.monotonic()
        for key, value in self._client.key_value_dir_get(ALIVE):
            before, since = self._seen.get(key, ("", now))
            self._seen[key] = (value, since if value == before else now)
            if now - self._seen[key][1] > self._lost_after:
                return f"{value.partition('|')[0]} has not been heard of for {self._lost_after:.0f} s"
        return None

    def failure(self) -> str | None:
        """What another process has died of."""
        try:
            return self._client.key_value_try_get(FAILED)
        except jax.errors.JaxRuntimeError as error:
            if "NOT_FOUND" in str(error):
                return None
            raise

    def publish(self, message: str) -> None:
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # the first one counts
            self._client.key_value_set(FAILED, message, allow_overwrite=False)
        if self._me == 0:  # the message goes with this process: time for the others to read it
            time.sleep(2.5 * EVERY)

    def ended(self, error: BaseException) -> BaseException:
        """What to raise in place of `error`: the other's failure if there is one; else ours, told to the others."""
        text = " ".join(str(error).split())
        # JAX and Orbax raise it as one type or another: the words tell.
        lost = not isinstance(error, UserError) and any(word in text.lower() for word in _LOST_WORDS)
        end = time.monotonic() + (10.0 if lost else 0.0)
        message = None
        while message is None:
            with contextlib.suppress(Exception):
                message = self.failure()
            if time.monotonic() > end:
                break
            time.sleep(0.2)
        if message is not None and text in message:
            return error
        if message is not None:
            return UserError(f"{message}; the last checkpoint is intact, the same command goes on")
        if lost:
            own = f"{self._name} lost another process ({text[:160]})"
            self.publish(own)
            return UserError(f"{own}; the last checkpoint is intact, the same command goes on")
        self.publish(f"{self._name}: {text[:400] or type(error).__name__}")
        return error

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=2 * EVERY)


@contextlib.contextmanager
def ending_as_one() -> Iterator[None]:
    """While inside, an error in one process ends all of them, each with a line that names it. Alone: nothing."""
    if jax.process_count() == 1:
        yield
        return
    watch = _Watch(_client())
    try:
        yield
    except BaseException as error:
        watch.close()
        other = watch.ended(error)
        if other is error:
            raise
        raise other from error
    else:
        from ragdiff_jax.parallel.processes import barrier

        barrier("ended")
        watch.close()
