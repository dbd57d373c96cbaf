"""The command teaches itself, and complains in one line."""

import argparse
import json

import pytest

from ragdiff_jax.cli.main import build_parser, main
from ragdiff_jax.version import __version__


def parsers(parser, words=""):
    """(words, parser) of each verb."""
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not inner:
        yield words.strip(), parser
    for action in inner:
        for name, below in action.choices.items():
            yield from parsers(below, f"{words} {name}")


VERBS = dict(parsers(build_parser()))


def run(capsys, *argv):
    try:
        code = main([str(part) for part in argv])
    except SystemExit as stop:
        code = stop.code
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_for_each_of_its_arguments(capsys, verb):
    code, out, _ = run(capsys, *verb.split(), "--help")
    assert code == 0
    assert f"usage: ragdiff {verb}" in out
    silent = [action.dest for action in VERBS[verb]._actions if not action.help]
    assert not silent


def test_help_lists_the_verbs(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(verb.split()[0] in out for verb in VERBS)


def test_version(capsys):
    assert run(capsys, "--version")[:2] == (0, f"ragdiff {__version__}\n")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["generate", "shirt.jpg"], "--out"),
        (["generate", "--out", "x"], "PHOTO"),
        (["generate", "a.jpg", "--out", "x", "--steps", "0"], "--steps"),
        (["generate", "a.jpg", "--out", "x", "--guidance", "nan"], "--guidance"),
        (["generate", "a.jpg", "--out", "x", "--sampler", "euler"], "euler"),
        (["generat"], "generat"),
        ([], "VERB"),
        (["memory", "build", "--out", "m"], "--flats"),
    ],
)
def test_a_wrong_call_is_one_line_and_code_2(capsys, argv, message):
    code, out, err = run(capsys, *argv)
    assert code == 2 and out == ""
    assert message in err and err.count("\n") == 1 and "--help" in err


def test_a_wrong_call_with_json_is_a_json_line_too(capsys):
    code, out, err = run(capsys, "generate", "shirt.jpg", "--json")
    assert code == 2 and "--out" in json.loads(out)["error"] and err.count("\n") == 1
