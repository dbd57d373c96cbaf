"""The one error that a user can mend."""

from typing import Any, get_args


class UserError(Exception):
    """A mistake in the input: the message is one line that names the value or file and the fix.

    The command prints it on stderr and exits with code 2; library users catch it by name.
    """


def check_choice(name: str, value: Any, kind: Any) -> None:
    """Raises `UserError` if the value of a field isn't one of `kind`, a `Literal`."""
    if value not in get_args(kind):
        raise UserError(f"{name} {value!r}: choose {', '.join(map(str, get_args(kind)))}")
