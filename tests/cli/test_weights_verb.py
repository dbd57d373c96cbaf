"""`ragdiff weights`: a model out and in again, what it weighs, and mistakes in one line."""

import filecmp
import json

from ragdiff_jax.cli.weights import DTYPES, KINDS
from ragdiff_jax.weights.architectures import ARCHITECTURES
from ragdiff_jax.weights.names import FLOATS


def test_the_help_names_all_kinds_and_architectures():
    assert {kind: set(names) for kind, names in KINDS.items()} == {k: set(v) for k, v in ARCHITECTURES.items()}
    assert set(DTYPES) == FLOATS


def test_out_and_in_again(ragdiff, world, tmp_path):
    code, lines, err = ragdiff("weights", "export", world[0], "--to", tmp_path / "out", "--part", "unet", "--json")
    assert (code, err) == (0, []) and [line["part"] for line in lines] == ["unet"]
    code, (line,), _ = ragdiff(
        "weights",
        "import",
        tmp_path / "out",
        "--subfolder",
        "unet",
        "--kind",
        "unet",
        "--to",
        tmp_path / "in",
        "--json",
    )
    assert code == 0 and line["parameters"] == lines[0]["parameters"] and line["dtypes"] == ["float32"]
    name = "diffusion_pytorch_model.safetensors"
    assert filecmp.cmp(tmp_path / "in" / name, world[0] / "unet" / name, shallow=False)
    assert json.loads((tmp_path / "in" / "config.json").read_text())["_class_name"] == "UNet2DConditionModel"


def test_info_of_a_model_and_of_the_shares_of_a_mesh(ragdiff, world):
    code, lines, _ = ragdiff("weights", "info", world[0], "--mesh", "data=1,fsdp=8", "--json")
    assert code == 0 and {line["part"] for line in lines} >= {"unet", "vae", "ep_adapter"}
    assert all(line["bytes"] / 8 <= line["device_bytes"] < line["bytes"] for line in lines)
    code, lines, _ = ragdiff("weights", "info", world[0])
    assert code == 0 and lines[-1].startswith("all: ") and "a device" not in lines[-1]


def test_mistakes_are_one_line_and_leave_nothing(ragdiff, world, tmp_path):
    out = tmp_path / "out"
    for argv, words in (
        (("import", world[0] / "vae", "--kind", "unet", "--to", out), "not of kind unet; use --kind vae"),
        (("import", "someone/sdxl", "--kind", "unet", "--to", out), "--revision"),
        (("import", tmp_path / "x.pth", "--kind", "unet", "--to", out), "no such file"),
        (("export", tmp_path, "--to", out), "config.json"),
        (("export", world[0], "--to", out, "--lora", tmp_path), "has neither"),
        (("info", world[0], "--mesh", "gpu=8"), "--mesh gpu=8"),
        (("info", tmp_path), "config.json"),
    ):
        code, lines, err = ragdiff("weights", *argv)
        assert code == 2 and not lines and len(err) == 1 and words in err[0], (argv, err)
    assert not list(tmp_path.iterdir())
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    code, _, err = ragdiff("weights", "export", tmp_path / "run", "--to", out)
    assert code == 2 and "no model/ yet" in err[0]
