"""`GarmentGenerator`: what a result depends on, and what it does not."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_model import draw_garment, random_params, small_system, small_world

from ragdiff_jax.errors import UserError
from ragdiff_jax.parallel import make_mesh
from ragdiff_jax.pipelines.generate import GarmentGenerator
from ragdiff_jax.pipelines.panel import offered_cells
from ragdiff_jax.pipelines.retrieved import NthAlternative
from ragdiff_jax.systems.variants import with_conditions
from ragdiff_jax.weights.model_folder import save_model


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    base = tmp_path_factory.getbasetemp() / "world"
    base.mkdir(exist_ok=True)
    model, memory, _ = small_world(base)
    return GarmentGenerator.from_folders(model, memory, batch_size=2)


@pytest.fixture(scope="module")
def photos():
    return [np.asarray(draw_garment(colour)) for colour in ("red", "blue", "green")]


def test_a_result_depends_on_photo_and_seed_alone(generator, photos):
    """Not on the order, nor on who else is in the batch, nor on how many there are."""
    first = generator.generate(photos[:2], steps=2, seed=1)
    again = generator.generate(photos[:2], steps=2, seed=1)
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, again, strict=True))
    order = generator.generate([photos[2], photos[1], photos[0]], steps=2, seed=1)  # a full batch, and one alone
    for a, b in ((first[0], order[2]), (first[1], order[1])):
        assert np.abs(a.image.astype(int) - b.image).max() <= 1
        assert a.retrieved.ids == b.retrieved.ids
    other = generator.generate(photos[:2], steps=2, seed=2)
    assert np.abs(first[0].image.astype(int) - other[0].image).max() > 1


def test_a_chosen_landmark_changes_the_picture_and_not_the_neighbours(generator, photos):
    fused = generator.generate(photos[:2], steps=2)
    other = (fused[0].retrieved.choice + 1) % 4
    asked = generator.generate(photos[:2], steps=2, landmark=other)
    assert asked[0].retrieved.ids == fused[0].retrieved.ids
    assert asked[0].retrieved.choice == other and asked[0].retrieved.landmark_source == f"neighbour {other}"
    assert np.array_equal(asked[0].retrieved.landmark, generator.memory.landmarks[asked[0].retrieved.rows[other]])
    assert not np.array_equal(asked[0].image, fused[0].image)


def test_guidance_and_caption_reach_the_sampler(generator, photos):
    plain = generator.generate(photos[:2], steps=2)[0].image
    assert not np.array_equal(plain, generator.generate(photos[:2], steps=2, guidance=5.0)[0].image)
    captions = ["a red shirt", "a blue shirt"]
    assert not np.array_equal(plain, generator.generate(photos[:2], steps=2, captions=captions)[0].image)


def test_the_same_program_serves_every_batch(generator, photos):
    generator.generate(photos[:2], steps=2)
    compiled = len(generator._programs)
    generator.generate([*photos, photos[0]], steps=2, guidance=3.0)
    assert len(generator._programs) == compiled


def test_a_mesh_shares_a_batch_and_changes_no_result(generator, photos):
    folder = generator.memory.path.parent / "model"
    mesh = make_mesh(data=2, devices=jax.devices()[:2])
    shared = GarmentGenerator.from_folders(folder, generator.memory.path, batch_size=1, mesh=mesh)
    assert shared.batch_size == 2
    # One photo a device, and then one alone, which both compute.
    found, alone = (shared.generate(photos[at : at + 2], steps=2, seed=1) for at in (0, 2))
    expected = generator.generate(photos, steps=2, seed=1)
    for one, other in zip([*found, *alone], expected, strict=True):
        assert one.retrieved.ids == other.retrieved.ids
        assert np.abs(one.image.astype(int) - other.image).max() <= 1


def test_steps_that_do_not_fit_the_schedule(generator, photos):
    with pytest.raises(UserError, match="steps"):
        generator.generate(photos[:1], steps=100_000)
    for guidance in (float("nan"), -1.0):
        with pytest.raises(UserError, match="guidance"):
            generator.generate(photos[:1], guidance=guidance)


def test_a_model_that_computes_in_bfloat16_serves_in_it_from_the_same_memory(generator, photos, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(generator.memory.path.parent / "model", folder)
    file = json.loads((folder / "model.json").read_text())
    assert file["settings"]["dtype"] == "float32"
    (folder / "model.json").write_text(json.dumps(file | {"settings": file["settings"] | {"dtype": "bfloat16"}}))
    half = GarmentGenerator.from_folders(folder, generator.memory.path, batch_size=2)
    assert half.params["unet"]["conv_in"]["kernel"].dtype == "bfloat16"
    assert half.params["structure_net"]["attributes"]["table"].dtype == "float32"  # the memory's encoder, to the bit
    whole, rounded = (g.generate(photos[:2], steps=2, seed=1) for g in (generator, half))
    for a, b in zip(whole, rounded, strict=True):
        assert 0 < np.abs(a.image.astype(int) - b.image).mean() < 16
    (folder / "model.json").write_text(json.dumps(file | {"settings": file["settings"] | {"dtype": "int8"}}))
    with pytest.raises(UserError, match="dtype is 'int8'; use float32 or bfloat16"):
        GarmentGenerator.from_folders(folder, generator.memory.path)


def of_conditions(generator, folder, *names):
    """A generator of a saved model that has other conditions and the same encoder."""
    small = small_system()
    model = with_conditions(dataclasses.replace(small, image_encoder=small.structure_net.vision), names)
    params = random_params(model) | {"structure_net": generator.params["structure_net"]}
    if "mask_unet" in params:
        params["mask_unet"]["conv_out"]["bias"] += 1000  # sees garment everywhere
    save_model(folder, model, params, [generator.memory.path.parent / "tokenizer"])
    return GarmentGenerator.from_folders(folder, generator.memory.path, batch_size=2)


def test_a_model_that_draws_its_landmark_from_the_photo(generator, photos, tmp_path):
    other = of_conditions(generator, tmp_path / "model", "latent_concat", "class_token", "predicted_landmark")
    found = other.generate(photos[:2], steps=2)
    for one in found:
        assert (one.retrieved.landmark_source, one.retrieved.choice) == ("predicted", None)
        assert one.retrieved.landmark.all() and one.retrieved.alternatives == ()
    assert not np.array_equal(found[0].image, found[1].image)
    with pytest.raises(UserError, match="draws its silhouette from the photo and has none"):
        other.check(landmark=NthAlternative(0))
    asked = other.generate(photos[:2], steps=2, landmark=1)[0]  # the user's word counts with any model
    assert asked.retrieved.landmark_source == "neighbour 1" and not np.array_equal(asked.image, found[0].image)


def test_a_model_without_a_landmark_says_so(generator, photos, tmp_path):
    other = of_conditions(generator, tmp_path / "model", "reference")
    assert [one.landmark_source for one in other.retrieve(photos[:2])] == ["unused", "unused"]
    assert other.retrieve(photos[:1])[0].alternatives == ()
    for asked in (0, NthAlternative(0)):
        with pytest.raises(UserError, match="looks at no silhouette"):
            other.check(landmark=asked)


def test_each_photo_of_a_batch_gets_its_own_alternative(generator, photos):
    plain = generator.retrieve(photos[:3])
    asked = generator.retrieve(photos[:3], landmark=NthAlternative(1))
    assert [one.landmark_id for one in asked] == [one.alternatives[1].id for one in plain]
    for one in asked:
        np.testing.assert_array_equal(one.landmark, generator.memory.landmarks[one.alternatives[1].row])
        assert sum(offer.chance for offer in one.alternatives) == pytest.approx(1, abs=1e-5)
    used = [[cell.chosen for cell in offered_cells(one, generator.memory)] for one in (plain[0], asked[0])]
    assert [row.index(True) for row in used] == [0, 1] and sum(map(sum, used)) == 2


def test_a_landmark_is_what_it_may_be(generator, photos):
    mask = np.zeros((32, 32), bool)
    mask[8:24, 8:24] = True
    for landmark in (mask, jnp.asarray(mask)):
        np.testing.assert_array_equal(generator.retrieve(photos[:1], landmark=landmark)[0].landmark, mask)
    assert generator.retrieve(photos[:1], landmark=np.int64(2))[0].landmark_source == "neighbour 2"
