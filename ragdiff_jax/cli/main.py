"""The `ragdiff` command: its verbs, and the promises in `errors.py` kept around them.

A verb's file has `add_arguments(parser)` and `run(arguments, report)`; JAX is imported inside `run`, so that
help is instant.
"""

import errno
import os
import sys
from collections.abc import Sequence

from ragdiff_jax.cli import (
    analyze,
    annotate,
    data,
    demo,
    edit,
    evaluate,
    generate,
    memory,
    plan,
    reproduce,
    retrieve,
    train,
    weights,
    words,
)
from ragdiff_jax.cli.errors import INTERRUPTED, Parser, Report
from ragdiff_jax.errors import UserError
from ragdiff_jax.version import __version__

VERBS = {
    "demo": (demo, "the shipped model on held-out garments and on your pictures"),
    "generate": (generate, "photos of garments in, flat-lays out"),
    "edit": (edit, "a person's picture and a text in, the person in other garments out"),
    "words": (words, "the nearest words to what an editing model makes of a garment"),
    "retrieve": (retrieve, "the memory's nearest garments of each photo"),
    "analyze": (analyze, "what retrieval does with a set of pairs: numbers and pictures"),
    "evaluate": (evaluate, "numbers of generated pictures beside the true ones, and of two results"),
    "reproduce": (reproduce, "which of the two papers' claims hold, measured in the small"),
    "train": (train, "run or resume one training stage"),
    "plan": (plan, "does a run fit a TPU pod, and how fast is it at most"),
    "memory": (memory, "build, extend or describe a memory of flat-lays"),
    "weights": (weights, "published checkpoints in, yours out; what a model weighs"),
    "data": (data, "write generated garments, or folders that you have, as a data set"),
    "annotate": (annotate, "attributes and captions for pictures that have none"),
}

# What a path may be to the system, which no verb asks of each it is given: another's folder, a name too long for it.
_PLACES = {errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EROFS}


def build_parser() -> Parser:
    text = "Photo of a garment in, its standard flat-lay out; a person in, the person in other garments out."
    parser = Parser(prog="ragdiff", description=text)
    parser.add_argument("--version", action="version", version=f"ragdiff {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, (module, help) in VERBS.items():
        verb = verbs.add_parser(name, help=help, description=module.__doc__, formatter_class=_Help)
        module.add_arguments(verb)
    return parser


class _Help(Parser().formatter_class):
    """Keeps the line breaks of the module's docstring, which is the verb's description."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "".join(indent + line for line in text.strip().splitlines(keepends=True))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb. Returns 0, 2 after a user's mistake, 130 after Ctrl-C; a bug keeps its traceback."""
    argv = sys.argv[1:] if argv is None else list(argv)
    report = Report(as_json="--json" in argv)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that is no text ends no batch
    try:
        arguments = build_parser().parse_args(argv)
        arguments.run(arguments, report)
    except UserError as error:
        report.error(error)
    except BrokenPipeError:  # the reader of our lines has gone; without this Python complains again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno not in _PLACES or not error.filename:
            raise
        from ragdiff_jax.data.images import one_line

        report.error(UserError(f"{one_line(error.filename)}: {error.strerror}; check the path"))
    except KeyboardInterrupt:
        print("ragdiff: interrupted", file=sys.stderr)
        return INTERRUPTED
    if report.code and "jax" in sys.modules and _one_of_several():
        # The others may be gone: the interpreter would wait for them at its exit.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(report.code)
    return report.code


def _one_of_several() -> bool:
    import jax

    return jax.distributed.is_initialized() and jax.process_count() > 1


if __name__ == "__main__":
    sys.exit(main())
