"""The one error that a user can mend."""


class UserError(Exception):
    """A mistake in the input: the message is one line that names the value or file and the fix.

    The command prints it on stderr and exits with code 2; library users catch it by name.
    """
