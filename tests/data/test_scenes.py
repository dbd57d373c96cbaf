"""Drawn photos say exactly what they show: labels, joints, the garment's pixels and its attributes must agree."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from ragdiff_jax.data.attributes import check_attributes
from ragdiff_jax.data.synth import CATEGORIES, garment_spec, render_photo, spec_attributes, wild
from ragdiff_jax.data.synth.flat import make_sheets
from ragdiff_jax.data.synth.folds import Drape
from ragdiff_jax.data.synth.light import CASTS, EXPOSURES
from ragdiff_jax.data.synth.seen import STATES, Worn, seen_attributes
from ragdiff_jax.data.synth.stage import LABELS, Stage, garment_label
from ragdiff_jax.data.synth.stance import KEYPOINTS
from ragdiff_jax.data.synth.warp import Arm, Placement, Ready, Wear, sleeve_start, warp
from ragdiff_jax.data.synth.wild import VIEWS, render_scene
from ragdiff_jax.data.synth_records import drawn_garment
from ragdiff_jax.data.wording import applies

SIZE = 64


@pytest.fixture(scope="module")
def scenes():
    """(spec, scene) for 60 garments, views as drawn."""
    specs = [garment_spec(seed) for seed in range(60)]
    return [(spec, render_scene(spec, seed, SIZE)) for seed, spec in enumerate(specs)]


@pytest.fixture(scope="module")
def people():
    specs = [garment_spec(seed) for seed in range(60)]
    return [(spec, render_scene(spec, seed, SIZE, view="worn")) for seed, spec in enumerate(specs)]


def test_a_scene_is_a_function_of_its_arguments(scenes):
    for seed in (3, 11, 25):
        spec, scene = scenes[seed]
        again = render_scene(spec, seed, SIZE, make_sheets(spec, SIZE))
        for field in dataclasses.fields(scene):
            assert np.array_equal(getattr(again, field.name), getattr(scene, field.name)), field.name
        photo, attributes = render_photo(spec, seed, SIZE)
        assert np.array_equal(photo, scene.photo) and attributes == scene.attributes
        assert not np.array_equal(render_scene(spec, seed + 1, SIZE).photo, scene.photo)


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_view_of_every_category(category):
    spec = garment_spec(5, category)
    sheets = make_sheets(spec, SIZE)
    for view in VIEWS:
        scene = render_scene(spec, 9, SIZE, sheets, view=view)
        assert scene.view == view
        assert scene.photo.shape == (SIZE, SIZE, 3) and scene.photo.dtype == np.uint8
        assert (scene.keypoints is not None) == (view == "worn")
        assert scene.garment_mask.mean() > 0.01, f"{view}: the garment can't be seen"
        check_attributes(scene.attributes)


def test_the_mask_is_the_label_maps_garment(scenes):
    for spec, scene in scenes:
        assert scene.label_map.dtype == np.uint8 and set(np.unique(scene.label_map)) <= set(LABELS.values())
        assert np.array_equal(scene.garment_mask, scene.label_map == garment_label(spec.category))
    assert {scene.view for _, scene in scenes} >= {"laid", "hung", "worn"}


def test_the_mask_holds_the_garments_pixels_and_no_others():
    """Two photos that differ only in the garment's colour differ inside the mask and hardly outside."""
    inside, outside = [], []
    for seed in range(24):
        spec = garment_spec(seed)
        red, blue = (
            dataclasses.replace(
                spec,
                look=dataclasses.replace(
                    spec.look,
                    colours=tuple([rgb] * len(spec.look.colours)),
                    trim=rgb,
                    lining=rgb,
                    print="Solid Color",
                ),
            )
            for rgb in ((200, 40, 40), (40, 60, 200))
        )
        a, b = (render_scene(s, seed, SIZE, exposure="normal") for s in (red, blue))
        assert np.array_equal(a.garment_mask, b.garment_mask)
        ours = a.garment_mask
        changed = np.abs(a.photo.astype(int) - b.photo).max(-1)
        rows, columns = np.flatnonzero(ours.any(1)), np.flatnonzero(ours.any(0))
        far = np.ones_like(ours)  # beside the frame's padding and the garment's antialiased rim
        grown = ours.copy()
        for shift in (-2, -1, 1, 2):
            grown |= np.roll(ours, shift, 0) | np.roll(ours, shift, 1)
        far[grown] = False
        padded = (a.photo[:, :1] == a.photo[:, 1:2]).all() or (a.photo[:1] == a.photo[1:2]).all()
        inside.append((changed[ours] > 8).mean())
        if not padded and len(rows) and len(columns):
            outside.append((changed[far] > 8).mean() if far.any() else 0.0)
    assert np.mean(inside) > 0.85 and np.median(inside) > 0.9
    assert len(outside) >= 5 and np.mean(outside) < 0.03


def test_joints_lie_on_the_person(people):
    """Where a joint is found, the label map shows what a body part there may be covered with, not the street."""
    covered = {name: [] for name in KEYPOINTS}
    for _, scene in people:
        assert scene.keypoints.shape == (18, 3) and scene.keypoints.dtype == np.float32
        assert set(np.unique(scene.keypoints[:, 2])) <= {0.0, 0.5, 1.0}
        for name, (x, y, confidence) in zip(KEYPOINTS, scene.keypoints, strict=True):
            if confidence == 0:
                assert x == y == 0
                continue
            assert 0 <= x < SIZE and 0 <= y < SIZE
            around = scene.label_map[max(0, int(y) - 1) : int(y) + 2, max(0, int(x) - 1) : int(x) + 2]
            covered[name].append(bool((around != LABELS["background"]).any()))
    for name, hits in covered.items():
        assert len(hits) >= 5, f"{name} is hardly ever in the frame"
        assert np.mean(hits) > 0.9, f"{name}: {np.mean(hits):.2f} on the person"


def test_faces_and_feet_have_their_own_labels(people):
    def at(scene, name):
        x, y, _ = scene.keypoints[KEYPOINTS.index(name)].astype(int)
        return set(np.unique(scene.label_map[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]))

    face = {LABELS["head"], LABELS["sunglasses"], LABELS["hair"], LABELS["hat"]}
    noses = [at(s, "nose") & face for _, s in people if s.keypoints[0, 2] > 0]
    assert len(noses) > 10 and np.mean([bool(n) for n in noses]) > 0.9
    # The person's right is the image's left.
    for _, scene in people:
        right, left = (scene.keypoints[KEYPOINTS.index(f"{side} hip")] for side in ("right", "left"))
        if right[2] and left[2]:
            assert right[0] < left[0]
    labels = np.concatenate([np.unique(s.label_map) for _, s in people])
    for name in ("hair", "head", "left arm", "right arm", "left shoe", "right shoe", "upper", "pants", "layer", "bag"):
        assert LABELS[name] in labels, name


def test_attributes_of_a_photo_are_those_of_the_garment_or_states_of_the_photo(scenes, people):
    for spec, scene in scenes + people:
        own = spec_attributes(spec)
        for name, value in check_attributes(scene.attributes).items():
            assert name in STATES or value == "Uncertain" or own[name] == value, (scene.view, name)
            assert applies(spec.category, name), (spec.category, name)
        if scene.view != "worn":
            assert "Gender" not in scene.attributes and scene.attributes.get("Top Tuck In") != "Yes"
    tucked = [s.attributes for _, s in people if s.attributes.get("Top Tuck In") == "Yes"]
    assert tucked and all(a["Length"] == "Uncertain" for a in tucked)
    inner = [s for _, s in people if s.attributes.get("With Inner Wear") == "Yes"]
    assert inner


def test_a_top_that_is_not_tucked_in_hangs_over_the_lap():
    for seed, tucked in ((574, "No"), (667, "No"), (773, "No"), (789, "Yes")):  # who sit
        spec = garment_spec(seed)
        seen = render_scene(spec, seed, SIZE, view="worn").attributes
        length = "Uncertain" if tucked == "Yes" else spec.shape.length
        assert (seen["Top Tuck In"], seen["Length"]) == (tucked, length), seed


def test_a_scene_that_hides_its_garment_is_drawn_anew():
    for index in (1048, 1158, 1166):  # shorts, first drawn under a long top
        spec, own = drawn_garment(index, 1)
        scene = render_scene(spec, own, SIZE, view="worn")
        assert scene.garment_mask.mean() >= 0.003 and scene.view == "worn", index
        assert np.array_equal(scene.photo, render_scene(spec, own, SIZE, view="worn").photo)


def test_what_never_shows_is_drawn_a_few_times_only(monkeypatch):
    times = []
    blank = render_scene(garment_spec(3), 3, SIZE)
    blank = dataclasses.replace(blank, garment_mask=np.zeros((SIZE, SIZE), bool))
    monkeypatch.setattr(wild, "_draw_scene", lambda rng, *rest: times.append(rng.random()) or blank)
    assert not render_scene(garment_spec(3), 3, SIZE).garment_mask.any()
    assert 1 < len(set(times)) == len(times) < 20


def test_what_is_hidden_is_not_claimed(scenes):
    laid = [scene for _, scene in scenes if scene.view == "laid"]
    whole = [s for s in laid if s.attributes["Length"] != "Uncertain"]
    assert len(whole) > 0.5 * len(laid), "most laid garments are seen whole"
    assert any(s.attributes["Length"] == "Uncertain" for _, s in scenes), "no photo cuts or covers a hem"
    spec = garment_spec(3, "Hoodie")
    ready = Ready(make_sheets(spec, SIZE), spec.shape)
    flat = np.zeros((SIZE, SIZE), np.float32)
    place = Placement(centre=(32.0, 32.0), middle=(0.0, 0.6), scale=(30.0, 30.0))
    arm = Arm((0.3, 0.1), 0.2, 0.2)
    wear = Wear(place=place, drape=Drape(flat, flat, flat + 1), arms=(arm, arm))
    nothing = seen_attributes(spec, ready, wear, np.zeros((SIZE, SIZE), np.uint8), Worn(on_person=True))
    assert nothing["Length"] == "Uncertain"
    for name in ("Collar", "Sleeve Length", "Sleeves Rolled Up", "Fit", "Top Open", "With Inner Wear", "Top Tuck In"):
        assert name not in nothing, f"{name} is claimed of a garment that can't be seen"


def test_a_cut_off_collar_is_left_out_and_a_seen_one_is_named():
    """The same garment, moved upwards until its collar leaves the frame."""
    spec = garment_spec(3, "Shirt")
    ready = Ready(make_sheets(spec, SIZE), spec.shape)
    flat = np.zeros((SIZE, SIZE), np.float32)
    start = sleeve_start(spec.shape, spec.shape.sleeve_angle)
    arm = Arm(start, spec.shape.sleeve_angle, spec.shape.sleeve_angle)
    claimed = []
    for y in (30.0, -10.0):
        place = Placement(centre=(32.0, y), middle=(0.0, 0.5), scale=(24.0, 24.0))
        wear = Wear(place=place, drape=Drape(flat, flat, flat + 1), arms=(arm, arm))
        stage = Stage(Image.new("RGB", (SIZE, SIZE)))
        for group in ("back", "left", "right", "body"):
            stage.lay(warp(ready, wear, SIZE, group, zones=True), LABELS["upper"])
        claimed.append("Collar" in seen_attributes(spec, ready, wear, np.asarray(stage.zones), Worn()))
    assert claimed == [True, False]


@pytest.mark.parametrize("exposure", EXPOSURES)
def test_extremes_of_light_keep_the_picture(exposure):
    means = []
    for seed in range(12):
        photo = render_scene(garment_spec(seed), seed, SIZE, exposure=exposure).photo
        assert photo.std() > 2 and photo.max() > 20, "nothing can be seen"
        means.append(photo.mean())
    low, high = {"normal": (60, 200), "dark": (10, 75), "bright": (120, 245)}[exposure]
    assert low < np.mean(means) < high
    assert len(CASTS) == 6


def test_a_larger_photo_shows_the_same_scene():
    for seed in (2, 8, 21):
        spec = garment_spec(seed)
        small, large = render_scene(spec, seed, 64), render_scene(spec, seed, 128)
        assert small.view == large.view and small.attributes.get("Category") == large.attributes.get("Category")
        if small.keypoints is not None:
            both = (small.keypoints[:, 2] > 0) & (large.keypoints[:, 2] > 0)
            assert np.abs(2 * small.keypoints[both, :2] - large.keypoints[both, :2]).max() < 4
