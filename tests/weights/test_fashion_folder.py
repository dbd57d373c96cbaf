"""Fashion-RAG's model folder: what is written is read, parts may be a neighbour's, and nothing else may be."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_fashion import random_fashion, save_small, small_fashion

from ragdiff_jax.errors import UserError
from ragdiff_jax.systems.fashion_presets import with_image_prompt
from ragdiff_jax.weights.exporting import export_model
from ragdiff_jax.weights.fashion_folder import (
    load_fashion,
    read_fashion,
    retrieval_fingerprint,
    save_fashion,
    share_parts,
    tokenizer_folder,
)
from ragdiff_jax.weights.info import weights_info


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save_small(tmp_path_factory.mktemp("fashion"))


@pytest.fixture
def folder(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "fashion")
    return tmp_path / "fashion"


def change(folder, **fields):
    file = folder / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def test_a_model_comes_back_as_it_was(folder):
    model = read_fashion(folder)
    assert model == small_fashion()
    loaded, saved = load_fashion(model, folder), random_fashion(model)
    jax.tree.map(np.testing.assert_array_equal, loaded, saved)
    assert (tokenizer_folder(folder) / "vocab.json").is_file()


def test_a_model_serves_in_the_dtype_that_it_was_trained_in(tmp_path):
    half = small_fashion(dtype=jnp.bfloat16, window=0.5)
    folder = save_small(tmp_path, half, "half")
    assert read_fashion(folder) == half
    params = load_fashion(half, folder, dtype=half.dtype)
    kinds = {part: {str(leaf.dtype) for leaf in jax.tree.leaves(tree)} for part, tree in params.items()}
    # What retrieves is known by its bits.
    own = {"text_encoder", "image_encoder"}
    assert kinds == {part: {"float32" if part in own else "bfloat16"} for part in params}
    assert retrieval_fingerprint(half, params) == retrieval_fingerprint(half, load_fashion(half, folder))
    save_fashion(tmp_path / "rounded", half, random_fashion(half), tokenizer_folder(folder), dtype=jnp.bfloat16)
    export_model(folder, tmp_path / "exported", dtype="bfloat16")
    for name in ("rounded", "exported"):
        written = load_fashion(half, tmp_path / name)
        assert retrieval_fingerprint(half, written) == retrieval_fingerprint(half, params), "a memory stays its own"
        assert weights_info(tmp_path / name / "unet")[0].dtypes.keys() == {"bfloat16"}
    settings = json.loads((folder / "model.json").read_text())["settings"]
    change(folder, settings=settings | {"dtype": "float16"})
    with pytest.raises(UserError, match="dtype is 'float16'; use float32 or bfloat16"):
        read_fashion(folder)


def test_optional_parts_come_back_and_are_checked(tmp_path):
    closer = dataclasses.replace(with_image_prompt(small_fashion()), reference_net=True)
    folder = save_small(tmp_path, closer, "closer")
    assert read_fashion(folder) == closer
    expected = random_fashion(closer) | random_fashion(small_fashion())
    loaded = load_fashion(closer, folder)
    jax.tree.map(np.testing.assert_array_equal, loaded, {part: expected[part] for part in loaded})
    assert {"reference_net", "image_adapter"} <= {info.part for info in weights_info(folder)}
    config = json.loads((folder / "unet" / "config.json").read_text())
    (folder / "reference_net" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="not the U-Net's own kind"):
        read_fashion(folder)


def test_shared_parts_are_read_from_the_neighbour(folder):
    neighbour = folder.parent / "tiny"
    for part in ("vae", "text_encoder", "tokenizer"):
        shutil.copytree(folder / part, neighbour / part)
    assert set(share_parts(folder, neighbour)) == {"vae", "text_encoder", "tokenizer"}
    assert not (folder / "vae").exists()
    model = read_fashion(folder)
    jax.tree.map(np.testing.assert_array_equal, load_fashion(model, folder), random_fashion(model))
    assert tokenizer_folder(folder) == (neighbour / "tokenizer").resolve()
    assert {info.part for info in weights_info(folder)} >= {"vae", "inversion", "image_encoder"}
    # An export is whole again.
    export_model(folder, folder.parent / "elsewhere" / "copy")
    jax.tree.map(
        np.testing.assert_array_equal,
        load_fashion(model, folder.parent / "elsewhere" / "copy"),
        random_fashion(model),
    )
    (neighbour / "vae" / "config.json").unlink()
    with pytest.raises(UserError, match="config.json"):
        read_fashion(folder)


@pytest.mark.parametrize("place", ["/etc/passwd", "../../secrets/vae", "../tiny/../vae", "vae", "../tiny"])
def test_a_shared_part_lies_in_a_neighbour_or_nowhere(folder, place):
    change(folder, shared={"vae": place})
    with pytest.raises(UserError, match="write ../FOLDER/PART"):
        read_fashion(folder)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"system": "ragdiffusion"}, "is a model of 'ragdiffusion'"),
        ({"settings": {"image_size": [32, 32], "speed": 1}}, "unknown setting 'speed'"),
        ({"settings": {}}, "'image_size' is missing"),
        ({"parts": {"unet": "UNet2DConditionModel"}}, "no part 'vae'"),
        ({"parts": dict.fromkeys(("unet", "vae", "text_encoder", "image_encoder"), "")}, "no part 'inversion'"),
        ({"shared": []}, "shared must be"),
        ({"shared": {"vae": 3}}, "shared must be"),
    ],
)
def test_what_is_wrong_with_model_json_is_named(folder, fields, message):
    change(folder, **fields)
    with pytest.raises(UserError, match=message):
        read_fashion(folder)


def test_the_encoder_of_a_database_is_its_towers(folder):
    model, params = small_fashion(), random_fashion(small_fashion())
    name = retrieval_fingerprint(model, params)
    assert retrieval_fingerprint(model, params | {"unet": {}}) == name
    assert retrieval_fingerprint(small_fashion(garment_fit="crop"), params) != name
    other = random_fashion(model, seed=1)
    assert retrieval_fingerprint(model, params | {"image_encoder": other["image_encoder"]}) != name
