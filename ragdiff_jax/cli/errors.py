"""What the command promises a script: exit codes, one line an error, only JSON lines on stdout."""

import argparse
import json
import sys
from typing import Any, NoReturn

from ragdiff_jax.errors import UserError

OK, MISTAKE, INTERRUPTED = 0, 2, 130


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is one line and not the whole usage; every flag is written out."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **({"allow_abbrev": False} | options))

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


class Report:
    """Where a verb says what it did, for a person or, with `--json`, for a program.

    A failed input does not end the run: `error` notes it, the verb goes on, and `code` is 2 at the end.
    """

    def __init__(self, *, as_json: bool):
        self.as_json = as_json
        self.failed = False
        self._bar: Any = None

    @property
    def code(self) -> int:
        return MISTAKE if self.failed else OK

    def result(self, record: dict[str, Any], text: str) -> None:
        """One thing done: `record` as a JSON line, or `text` for a person."""
        line = _json(record) if self.as_json else text
        if self._bar is not None and not self._bar.disable:
            self._bar.write(line, file=sys.stdout)  # takes the bar away while it prints
            sys.stdout.flush()
        else:
            print(line, flush=True)

    def progress(self, total: int, unit: str) -> Any:
        """A progress bar (context manager with `update()`), invisible where stderr is no terminal."""
        from tqdm import tqdm

        self._bar = tqdm(total=total, unit=unit, file=sys.stderr, disable=None if total > 1 else True)
        return self._bar

    def note(self, text: str) -> None:
        """Something to know on the way; on stderr, so that stdout stays what the contract says."""
        print(text, file=sys.stderr, flush=True)

    def error(self, error: UserError, input: str | None = None) -> None:
        """A mistake of the user in `input` (None: in the call as a whole)."""
        self.failed = True
        message = " ".join(str(error).split())
        if self.as_json:
            print(_json({"input": input, "error": message}), flush=True)
        print(f"ragdiff: {message}", file=sys.stderr, flush=True)


def _json(record: dict[str, Any]) -> str:
    """A line that stdout can hold: a file's name may be of bytes that are no text."""
    line = json.dumps(record, ensure_ascii=False)
    try:
        line.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(record)
    return line
