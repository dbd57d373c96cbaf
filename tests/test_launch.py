"""launch/: every command that the recipes would run is one that `ragdiff` takes, to the last setting; what they and the
scripts for clusters do when they are stopped, with stubs in the place of `ragdiff`, `gcloud` and `srun`."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

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


# What a run may end with: `MODEL` is written last, or not at all.
RAGDIFF = """while (($#)); do [[ $1 == --workdir ]] && run=$2; shift; done
sleep 0.05; [[ -z "$MODEL" ]] || { mkdir -p "$run/model"; touch "$run/model/model.json"; }
exit "${CODE:-0}\""""
ENDINGS = pytest.mark.parametrize(
    "old, variables, done",
    [
        (False, {"MODEL": "1"}, True),
        (False, {"MODEL": ""}, False),  # told to stop
        (True, {"MODEL": ""}, False),  # ... as it went on, for longer, from a run that was done
        (True, {"MODEL": "1"}, True),
        (False, {"MODEL": "1", "CODE": "3"}, None),  # failed
    ],
)


def a_workdir(folder: Path, old: bool) -> Path:
    if old:
        (folder / "model").mkdir(parents=True)
        (folder / "model" / "model.json").touch()
        for path in (folder / "model" / "model.json", folder / "model"):
            os.utime(path, (1e9, 1e9))
    return folder


@ENDINGS
def test_a_slurm_job_queues_again_until_it_is_done(tmp_path, old, variables, done):
    stubs = {"sbatch": "exec bash", "scontrol": f'echo "$*" >>{tmp_path}/scontrol', "ragdiff": RAGDIFF}
    stubs["srun"] = f'echo "$*" >{tmp_path}/srun; while [[ "$1" == --* ]]; do shift; done; "$@"'
    environment = os.environ | {"PATH": stub(tmp_path / "bin", **stubs), "SLURM_JOB_ID": "7", "CPUS": "8"} | variables
    run = a_workdir(tmp_path / "new folder" / "run", old)
    command = [str(ROOT / "launch" / "slurm.sh"), "config.py", f"{run}/", "--set", "model.trainable=^unet/"]
    ended = subprocess.run(command, env=environment)
    assert ended.returncode == int(variables.get("CODE", 0))
    asked = tmp_path / "scontrol"
    assert (asked.read_text() == "requeue 7\n") if done is False else not asked.exists()
    words = (tmp_path / "srun").read_text()
    assert "--cpus-per-task=8 ragdiff train" in words and words.endswith("--set model.trainable=^unet/\n")
    subprocess.run(command, env=environment | {"REQUEUE": "0", "CODE": "0"}, check=True)
    assert not asked.exists() or asked.read_text() == "requeue 7\n"
    script = subprocess.run([command[0], "--dry-run", *command[1:]], env=environment, capture_output=True, text=True)
    assert "\n#SBATCH --cpus-per-task=8\n" in script.stdout and f'--output="{run}.slurm.log"\n' in script.stdout


def pod_command(mount: Path, workdir: Path, *settings: str) -> list[str]:
    """What Kubernetes runs of the printed manifest."""
    given = {"NAME": "run1", "IMAGE": "registry/ragdiff:1", "TPU": "tpu-v5p-slice", "TOPOLOGY": "2x2x2", "HOSTS": "2"}
    given |= {"VOLUME": "runs", "MOUNT": str(mount)}
    command = [str(ROOT / "launch" / "gke_jobset.sh"), "--dry-run", "config.py", str(workdir), *settings]
    printed = subprocess.run(command, env=os.environ | given, check=True, capture_output=True, text=True).stdout
    pod = yaml.safe_load(printed)["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert pod["volumes"] == [{"name": "shared", "persistentVolumeClaim": {"claimName": "runs"}}]
    (container,) = pod["containers"]
    assert container["volumeMounts"] == [{"name": "shared", "mountPath": str(mount)}]
    assert "$" not in "".join(container["command"]).replace("$$", "")  # or it would be a variable of Kubernetes
    return [word.replace("$$", "$") for word in container["command"]]


@ENDINGS
def test_a_pod_that_is_not_done_fails(tmp_path, old, variables, done):
    run = a_workdir(tmp_path / "a \"run\"", old)
    settings = ("--set", "model.trainable=^unet/", "--set", "train.wandb=$(HOME) $x 'é'\n#: {")
    command = pod_command(tmp_path, run, *settings)
    assert command[4:] == ["ragdiff", "train", "--config", "config.py", "--workdir", str(run), *settings]
    environment = os.environ | {"PATH": stub(tmp_path / "bin", ragdiff=RAGDIFF)} | variables
    ended = subprocess.run(command, env=environment)
    assert ended.returncode == int(variables.get("CODE", 0 if done else 1))


def test_a_pods_run_gets_the_sigterm_and_its_time(tmp_path):
    lines = f"""trap 'sleep 0.5; echo saved >{tmp_path}/saved; exit' TERM
    touch {tmp_path}/began; while :; do sleep 0.1; done"""
    environment = os.environ | {"PATH": stub(tmp_path / "bin", ragdiff=lines)}
    pod = subprocess.Popen(pod_command(tmp_path, tmp_path / "run"), env=environment)
    while not (tmp_path / "began").exists():
        time.sleep(0.05)
    pod.send_signal(signal.SIGTERM)
    assert pod.wait(60) == 1 and (tmp_path / "saved").exists()


def test_a_workdir_that_the_pods_do_not_share_is_refused():
    given = {"NAME": "run1", "IMAGE": "i", "TPU": "t", "TOPOLOGY": "2x2x2", "HOSTS": "2", "VOLUME": "runs"}
    command = [str(ROOT / "launch" / "gke_jobset.sh"), "--dry-run", "config.py", "gs://bucket/run"]
    done = subprocess.run(command, env=os.environ | given, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "gs://bucket/run: not in MOUNT=/mnt/runs, the one place that all pods share\n"


# `describe` says the next line of `states` each time, and knows no request where that is empty.
GCLOUD = """case "$4" in
describe) read -r state <states; sed -i 1d states; [[ "$state" ]] || exit 1; echo "$state";;
create | delete) echo "$4" >>log;;
scp) echo scp >>log; printf '%s\n' "${@: -6}" >scp;;
ssh) echo ssh >>log; echo "${@: -1}" >>ssh;;
esac"""
ASKED = ["create", "scp", "ssh", "ssh"]


@pytest.mark.parametrize(
    "states, did",
    [
        (["", "ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"], ASKED),
        (["ACTIVE", "ACTIVE"], ASKED[1:]),  # the line again
        (["CREATING", "CREATING", "ACTIVE"], ASKED[1:]),
        (["SUSPENDED", "CREATING", "ACTIVE"], ["delete", *ASKED]),  # a spot slice that was taken back
        (["SUSPENDING", "SUSPENDED", "CREATING", "ACTIVE"], ["delete", *ASKED]),
        (["FAILED", "ACTIVE"], ["delete", *ASKED]),
        (["", "ACCEPTED", "FAILED"], ["create"]),
        (["ACCEPTED", "SUSPENDING"], []),
    ],
)
def test_a_tpu_is_asked_for_once_and_again_where_it_was_lost(tmp_path, states, did):
    (tmp_path / "states").write_text("".join(f"{state}\n" for state in states))
    (tmp_path / "log").touch()
    given = {"NAME": "run1", "ZONE": "z", "TYPE": "v5p-16", "POLL": "0", "PACKAGE": "/w/ragdiff_jax-1-py3-none-any.whl"}
    command = [str(ROOT / "launch" / "tpu_vm.sh"), "config.py", "/mnt/run", "--set", "model.trainable=^unet/ x"]
    environment = os.environ | {"PATH": stub(tmp_path / "bin", gcloud=GCLOUD)} | given
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert (tmp_path / "log").read_text().split() == did
    assert not (tmp_path / "states").read_text()
    if states[-1] != "ACTIVE":
        told = f"the request run1 is {states[-1]}; run the line again to ask anew\n"
        assert done.returncode == 1 and done.stderr == told
        return
    assert done.returncode == 0, done.stderr
    copied = (tmp_path / "scp").read_text().split()
    assert copied[:3] == [str(ROOT / "configs"), given["PACKAGE"], "run1:"]
    install, train = (tmp_path / "ssh").read_text().rsplit("\n", 2)[0], (tmp_path / "ssh").read_text().splitlines()[-1]
    assert "--python 3.11" in install and "ragdiff_jax[tpu] @ file://$HOME/ragdiff_jax-1-py3-none-any.whl" in install
    assert shlex.split(train)[1:] == ["train", "--config", "config.py", "--workdir", "/mnt/run", *command[3:]]


def test_a_tpu_of_which_nothing_is_known_ends_the_wait(tmp_path):
    """No network, no rights: `describe` fails, and so does the script, once the request was there."""
    (tmp_path / "states").write_text("ACCEPTED\n\n")
    (tmp_path / "log").touch()
    given = {"NAME": "run1", "ZONE": "z", "TYPE": "v5p-16", "POLL": "0", "PACKAGE": "ragdiff_jax-1-py3-none-any.whl"}
    environment = os.environ | {"PATH": stub(tmp_path / "bin", gcloud=GCLOUD)} | given
    done = subprocess.run([str(ROOT / "launch" / "tpu_vm.sh"), "c.py", "/mnt/r"], env=environment, cwd=tmp_path)
    assert done.returncode == 1 and not (tmp_path / "log").read_text()
