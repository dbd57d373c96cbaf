"""launch/: every command that the recipes would run is one that `ragdiff` takes, to the last setting; what they and the
scripts for clusters do when they are stopped, with stubs in the place of `ragdiff`, `gcloud` and `srun`."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ragdiff_jax.cli.main import build_parser
from ragdiff_jax.cli.train import apply_settings, read_config

ROOT = Path(__file__).parents[1]


def printed(recipe: str, *arguments: str, **variables: str) -> list[list[str]]:
    """The `ragdiff` commands of a dry run."""
    environment = os.environ | {"DRY": "1", "PYTHON_BIN": str(Path(sys.executable).parent)} | variables
    command = [str(ROOT / "launch" / recipe), *arguments]
    lines = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.splitlines()
    return [words[1:] for words in map(shlex.split, lines) if words and words[0] == "ragdiff"]


def stub(folder: Path, **scripts: str) -> str:
    """PATH with these commands before all others."""
    folder.mkdir(exist_ok=True)
    for name, lines in scripts.items():
        path = folder / name.replace("_", "-")
        path.write_text(f"#!/usr/bin/env bash\n{lines}\n")
        path.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def without(*names: str) -> dict[str, str]:
    """The environment but for these variables."""
    return {name: value for name, value in os.environ.items() if name not in names}


def test_the_adoption_path_calls_what_there_is(tmp_path):
    where = {name: str(tmp_path / name.lower()) for name in ("SDXL", "FLUX", "CLIP", "DATA")}
    commands = printed("adopt_sdxl", str(tmp_path / "run"), **where)
    parser = build_parser()
    verbs = [parser.parse_args(command) and command[0] for command in commands]
    assert verbs.count("weights") == 7 and verbs.count("train") == 5 and verbs[-2:] == ["weights", "generate"]
    for command in commands:
        if command[0] == "train":
            arguments = parser.parse_args(command)
            config = read_config(arguments.config)
            apply_settings(config, arguments.set)  # refuses a key that the config doesn't have
            assert config.data.folder == where["DATA"]
    assert not (tmp_path / "run").exists()


def test_the_adoption_path_names_the_folder_that_is_missing(tmp_path):
    command = [str(ROOT / "launch" / "adopt_sdxl")]
    none = without("SDXL", "FLUX", "CLIP", "DATA")
    done = subprocess.run(command, env=none, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("set SDXL=DIR")
    given = none | dict.fromkeys(("SDXL", "FLUX", "CLIP", "DATA"), "/none")
    done = subprocess.run(command, env=given, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == "SDXL=/none: no such folder\n"


@pytest.fixture
def adoption(tmp_path):
    """launch/adopt_sdxl with a `ragdiff` that makes what it is told to; a call returns what ran, and the result."""
    log, run = tmp_path / "log", tmp_path / "run"
    python = f"""case "$1" in -) exec {sys.executable} "$@";; -c) echo cpu;;
    -m) echo "${{2##*.}} ${{*: -2}}" >>{log};; esac"""
    ragdiff = f"""echo "ragdiff $*" >>{log}
    while (($#)); do case "$1" in --to | --out) mkdir -p "$2";; --workdir) mkdir -p "$2/model";; esac; shift; done"""
    stub(tmp_path / "bin", python=python, ragdiff=ragdiff)
    where = {name: str(tmp_path / name.lower()) for name in ("SDXL", "FLUX", "CLIP", "DATA")}
    for folder in where.values():
        Path(folder, "photos").mkdir(parents=True)
    for number in range(400):
        Path(where["DATA"], "photos", f"{number:03}.jpg").touch()

    def call(**variables):
        log.write_text("")
        environment = without("DRY", "CHECK", "PHOTOS", "JAX_PLATFORMS") | where
        environment |= {"PYTHON_BIN": str(tmp_path / "bin"), "PYTHONPATH": str(ROOT)} | variables
        command = [str(ROOT / "launch" / "adopt_sdxl"), str(run)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        return log.read_text().splitlines(), done

    return call


def test_the_adoption_path_repeats_nothing_but_what_was_stopped(adoption):
    from ragdiff_jax.data.folder import SHARES, split_of

    ran, done = adoption()
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in ran].count("torch_side") == 3
    assert sum("our_side --most 1e-4" in line for line in ran) == 3
    photos = [Path(word).stem for word in ran[-1].split() if word.endswith(".jpg")]
    assert len(photos) == 8 and {split_of(photo, SHARES) for photo in photos} == {"validation"}
    ran, done = adoption()  # the pictures are asked for again: `generate` itself knows which are there
    assert done.returncode == 0 and len(ran) == 1 and ran[0].startswith("ragdiff generate") and "--resume" in ran[0]
    ran, done = adoption(PHOTOS="/elsewhere/photos")
    assert len(ran) == 1 and ran[0].startswith("ragdiff generate /elsewhere/photos --resume")


def test_no_training_on_the_cpu_beside_a_card(adoption, tmp_path):
    path = stub(tmp_path / "card", **{"nvidia_smi": "exit 0"})
    ran, done = adoption(PATH=path)
    assert done.returncode == 2 and not ran and done.stderr.count("\n") == 1
    assert done.stderr.startswith("nvidia-smi is here, but JAX sees the CPU alone") and "EXTRA=cuda" in done.stderr
    ran, done = adoption(PATH=path, JAX_PLATFORMS="cpu")
    assert done.returncode == 0 and ran


@pytest.mark.parametrize(
    "card, asked, variables, installs",
    [
        (True, "", {}, "[cuda] cuda test-cuda"),
        (True, "test", {}, "[test,cuda] test-cuda test-cuda"),
        (True, "test", {"EXTRA": "cuda13"}, "[test,cuda13] test-cuda13 test-cuda13"),
        (True, "", {"JAX_PLATFORMS": "cpu"}, " demo test"),
        (False, "", {}, " demo test"),
        (False, "test", {}, "[test] test"),
        (False, "", {"EXTRA": "tpu"}, "[tpu] tpu test-tpu"),
    ],
)
def test_what_trains_gets_the_jax_of_the_machine(tmp_path, card, asked, variables, installs):
    path = stub(tmp_path / "card", **({"nvidia_smi": "exit 0"} if card else {}))
    environment = without("EXTRA", "JAX_PLATFORMS") | {"PATH": path} | variables
    lines = f'source {ROOT}/launch/environment.sh; prepare() {{ echo "$@"; }}; prepare_training {asked}'
    done = subprocess.run(["bash", "-euc", lines], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout == installs + "\n"
