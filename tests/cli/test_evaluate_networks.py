"""`weights import` of metrics' networks from files as they are published, and `evaluate --networks` with them."""

import json

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from ragdiff_jax.cli.weights import METRIC_KINDS
from ragdiff_jax.data.images import load_image, square
from ragdiff_jax.data.tokenizer import train_tokenizer
from ragdiff_jax.evaluation import pair_scores
from ragdiff_jax.models import dists, inception, lpips
from ragdiff_jax.weights import metric_networks

CAPTIONS = ("a red shirt", "a blue hoodie", "a shirt", "red trousers")


def old_file(path, tensors):
    """As torch wrote before 1.6, with what a public file has beside: a classifier."""
    tensors = {name: torch.tensor(value) for name, value in tensors.items()} | {"fc.weight": torch.zeros(2, 2)}
    torch.save(tensors, path, _use_new_zipfile_serialization=False)
    return path


def small(shapes, seed):
    """Kernels of He's scale, and moments that let the signal through."""
    rng, found = np.random.default_rng(seed), {}
    for name, shape in shapes.items():
        if name.endswith(("running_var", "bn.weight")) or name in ("alpha", "beta"):
            found[name] = 0.5 + rng.random(shape, np.float32)
        else:
            scale = np.sqrt(2 / np.prod(shape[1:])) if len(shape) == 4 else 0.1
            found[name] = np.float32(scale) * rng.standard_normal(shape, np.float32)
    return found


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Files of every metric's network with random numbers, and a tiny CLIP with its tokenizer."""
    base = tmp_path_factory.mktemp("published")
    tensors = small(dists.shapes(), 1)
    old_file(base / "inception.pth", small(inception.shapes(), 0))
    old_file(base / "vgg.pth", {name: value for name, value in tensors.items() if name.startswith("features")})
    old_file(base / "weights.pt", {name: tensors[name] for name in ("alpha", "beta")})
    tokenizer = train_tokenizer(CAPTIONS, 600, base / "tokenizer")
    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = tower | {"vocab_size": tokenizer.vocab_size, "eos_token_id": tokenizer.eos_id, "bos_token_id": 1}
    vision = tower | {"image_size": 32, "patch_size": 16}
    torch.manual_seed(0)
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    clip = transformers.CLIPModel(config).eval()
    clip.save_pretrained(base / "clip")
    return base, clip, tokenizer


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base, rng = tmp_path_factory.mktemp("pairs"), np.random.default_rng(0)
    for name in ("real", "fake"):
        (base / name).mkdir()
    for number in range(4):
        picture = np.full((48, 48, 3), 255, np.uint8)
        picture[8:40, 10:38] = rng.integers(0, 200, 3)
        picture[14:24, 14:24] = rng.integers(0, 200, 3)
        Image.fromarray(picture).save(base / f"real/{number}.png")
        Image.fromarray(np.roll(picture // 2, 2, axis=1)).save(base / f"fake/{number}.png")
    mask = np.zeros((48, 48), np.uint8)
    mask[4:44, 6:42] = 255
    Image.fromarray(mask).save(base / "mask.png")
    edits = [
        {"image": f"{number}.png", "caption": CAPTIONS[number], "mask": "mask.png", "retrieved": ["real/1.png"]}
        for number in range(3)
    ]
    (base / "edits.jsonl").write_text("\n".join(map(json.dumps, edits)))
    return base


def embed(clip, picture):
    mean, std = (torch.tensor(v) for v in ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)))
    pixels = ((torch.tensor(picture) / 255 - mean) / std).permute(2, 0, 1)[None]
    with torch.no_grad():
        found = clip.visual_projection(clip.vision_model(pixel_values=pixels).pooler_output)[0].numpy()
    return found / np.linalg.norm(found)


def test_every_number_with_its_network_and_none_without(ragdiff, published, folders, tmp_path, monkeypatch):
    monkeypatch.setattr(pair_scores, "INCEPTION_SIDE", 75)  # the least that it takes: a twentieth of the work
    for name in ("fid", "clip_fid"):
        monkeypatch.setitem(pair_scores.FEWEST, name, 4)
    base, clip, tokenizer = published
    imports = {
        "inception": ("inception.pth", "--kind", "inception"),
        "dists": ("vgg.pth", "--with", base / "weights.pt", "--kind", "dists"),
        "vision": ("clip", "--kind", "clip-vision"),
        "text": ("clip", "--kind", "clip-text"),
    }
    for name, (source, *argv) in imports.items():
        code, out, err = ragdiff("weights", "import", base / source, *argv, "--to", tmp_path / name, "--json")
        assert code == 0, err
        if name in METRIC_KINDS:
            assert not any(out[0]["public"].values())
    (tmp_path / "tokenizer").symlink_to(base / "tokenizer")

    wanted = ("fid", "kid", "dists", "clip_fid", "clip_t", "clip_i")
    paths = ("--real", folders / "real", "--fake", folders / "fake", "--out", tmp_path / "out", "--size", 48)
    networks = ("--networks", *(tmp_path / name for name in imports))
    argv = ("evaluate", "editing", *paths, "--json", "--metrics", *wanted)
    code, out, err = ragdiff(*argv, *networks, "--edits", folders / "edits.jsonl", "--batch", 4)
    assert code == 0, err
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert set(results["metrics"]) == set(wanted) and results["metrics"]["clip_t"]["n"] == 3
    row = results["metrics"]["fid"]
    assert row["protocol"].startswith("fid/clean-299/inception-2015/1/weights-") and row["low"] < row["value"]

    edited = load_image(folders / "fake/0.png")[4:44, 6:42]
    ids = torch.tensor(tokenizer.encode([CAPTIONS[0]]))
    with torch.no_grad():
        words = clip.text_projection(clip.text_model(input_ids=ids).pooler_output)[0].numpy()
    pairs = [json.loads(line) for line in (tmp_path / "out/pairs.jsonl").read_text().splitlines()]
    assert pairs[0]["clip_t"] == pytest.approx(
        100 * embed(clip, square(edited, 32)) @ words / np.linalg.norm(words), abs=1e-3
    )
    patch = np.asarray(Image.fromarray(edited).resize((32, 32), Image.Resampling.BICUBIC))
    garment = square(load_image(folders / "real/1.png"), 32)
    assert pairs[0]["clip_i"] == pytest.approx(embed(clip, patch) @ embed(clip, garment), abs=1e-5)
    assert pairs[3]["clip_t"] is None

    same = ragdiff("evaluate", "compare", tmp_path / "out", tmp_path / "out", "--json")[1][0]["metrics"]
    assert same["fid"]["difference"] == 0 and same["fid"]["verdict"] == "undecided"
    for lacking, words in ((networks[:1] + networks[2:], "--metrics fid: its network"), (networks, "--edits names")):
        code, _, err = ragdiff(*argv, *lacking)
        assert code == 2 and len(err) == 1 and words in err[0]


def test_wrong_files_are_told_apart(ragdiff, published, tmp_path):
    base = published[0]
    for argv, words in (
        (("vgg.pth", "--kind", "inception"), "no inception: missing"),
        (("vgg.pth", "--kind", "dists"), "takes 2 file"),
        (("vgg.pth", "--with", base / "vgg.pth", "--kind", "dists"), "missing (2): alpha, beta"),
        (("vgg.pth", "--with", base / "weights.pt", "--kind", "lpips-alex"), "features.0.weight [64, 3, 3, 3]"),
        (("vgg.pth", "--kind", "inception", "--dtype", "float16"), "--dtype doesn't go with"),
        (("clip", "--with", base / "vgg.pth", "--kind", "clip-text"), "--with goes with"),
    ):
        code, _, err = ragdiff("weights", "import", base / argv[0], *argv[1:], "--to", tmp_path / "part")
        assert code == 2 and len(err) == 1 and words in err[0] and not (tmp_path / "part").exists()


def test_published_hashes_are_known():
    kinds = metric_networks.METRIC_KINDS
    assert tuple(kinds) == METRIC_KINDS
    assert all(len(file.sha256) in (8, 64) for kind in kinds.values() for file in kind.files)
    assert all(f"lpips-{net}" in kinds for net in lpips.LAYERS)
