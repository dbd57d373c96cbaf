"""Recipes in launch/: every command that they would run is one that `ragdiff` takes, to the last setting."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

from ragdiff_jax.cli.main import build_parser
from ragdiff_jax.cli.train import apply_settings, read_config

ROOT = Path(__file__).parents[1]


def printed(recipe: str, *arguments: str, **variables: str) -> list[list[str]]:
    """The `ragdiff` commands of a dry run."""
    environment = os.environ | {"DRY": "1", "PYTHON_BIN": str(Path(sys.executable).parent)} | variables
    command = [str(ROOT / "launch" / recipe), *arguments]
    lines = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.splitlines()
    return [words[1:] for words in map(shlex.split, lines) if words and words[0] == "ragdiff"]


def test_the_adoption_path_calls_what_there_is(tmp_path):
    where = {name: str(tmp_path / name.lower()) for name in ("SDXL", "FLUX", "CLIP", "DATA")}
    commands = printed("adopt_sdxl", str(tmp_path / "run"), **where)
    parser = build_parser()
    verbs = [parser.parse_args(command) and command[0] for command in commands]
    assert verbs.count("weights") == 7 and verbs.count("train") == 5 and verbs[-2:] == ["generate", "weights"]
    for command in commands:
        if command[0] == "train":
            arguments = parser.parse_args(command)
            config = read_config(arguments.config)
            apply_settings(config, arguments.set)  # refuses a key that the config doesn't have
            assert config.data.folder == where["DATA"]
    assert not (tmp_path / "run").exists()


def test_the_adoption_path_names_the_folder_that_is_missing(tmp_path):
    command = [str(ROOT / "launch" / "adopt_sdxl")]
    none = {name: value for name, value in os.environ.items() if name not in ("SDXL", "FLUX", "CLIP", "DATA")}
    done = subprocess.run(command, env=none, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("set SDXL=DIR")
    given = none | dict.fromkeys(("SDXL", "FLUX", "CLIP", "DATA"), "/none")
    done = subprocess.run(command, env=given, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == "SDXL=/none: no such folder\n"
