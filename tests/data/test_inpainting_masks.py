import drawn_people
import numpy as np
import pytest

from ragdiff_jax.data.images import save_image
from ragdiff_jax.data.inpainting_masks import CATEGORIES, box_mask, inpainting_mask, kept_parts, read_mask
from ragdiff_jax.data.label_maps import CLASSES
from ragdiff_jax.errors import UserError

WORN = {"upper_body": "pants", "lower_body": "pants", "dresses": "dress"}


def of(labels, *names):
    return np.isin(labels, [CLASSES[name] for name in names])


@pytest.mark.parametrize(
    ("category", "covered", "kept"),
    [
        ("upper_body", ["upper"], ["pants", "left shoe", "right shoe", "hair"]),
        ("lower_body", ["pants", "left leg", "right leg"], ["upper", "left arm", "right arm", "left shoe", "head"]),
        ("dresses", ["dress", "left leg", "right leg"], ["left shoe", "right shoe", "hair"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("mode", ["mask", "bounding_box"])
def test_the_garment_is_covered_and_the_rest_kept(category, covered, kept, mode):
    labels = drawn_people.labels(WORN[category])
    mask = inpainting_mask(labels, category, drawn_people.keypoints(), mode=mode)
    assert mask[of(labels, *covered)].all()
    assert not mask[of(labels, *kept)].any()
    assert not mask[40:85, 172:212].any()  # the face, down to the chin
    assert mask[of(labels, "background")].mean() < (0.15 if mode == "mask" else 0.35)


@pytest.mark.parametrize("category", ["upper_body", "dresses"])
def test_arms_go_and_hands_and_neck_follow_the_joints(category):
    labels = drawn_people.labels(WORN[category])
    mask = inpainting_mask(labels, category, drawn_people.keypoints())
    assert mask[120:230, 150].all() and mask[120:230, 234].all()  # below the shoulders, to the wrists
    assert mask[180:230, 118:144].all() and mask[180:230, 240:266].all()
    assert not mask[262:270, 118:138].any()  # the hand, half the line's width below the wrist
    assert mask[98:105, 172:212].all()  # the neck: from 20 pixels over the shoulders at 115
    assert not mask[40:90, 172:212].any()


def test_the_margin_is_ten_pixels():
    labels = np.zeros((512, 384), np.uint8)
    labels[200:300, 100:200] = CLASSES["dress"]
    expected = np.zeros((512, 384), bool)
    expected[190:310, 90:210] = True
    np.testing.assert_array_equal(inpainting_mask(labels, "dresses"), expected)
    half = inpainting_mask(labels[::2, ::2], "dresses")
    np.testing.assert_array_equal(half, expected[::2, ::2])


def test_the_bounding_box_fills_the_masks_box_but_for_what_is_kept():
    labels, joints = drawn_people.labels(), drawn_people.keypoints()
    mask = inpainting_mask(labels, "upper_body", joints)
    box = inpainting_mask(labels, "upper_body", joints, mode="bounding_box")
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    inside = np.zeros_like(mask)
    inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    np.testing.assert_array_equal(box, inside & ~kept_parts(labels, "upper_body", joints))
    assert (box & ~mask).sum() > 1000


def test_the_skirt_is_drawn_anew_but_not_in_the_compatible_mask():
    labels, joints = drawn_people.labels("skirt"), drawn_people.keypoints()
    mended = inpainting_mask(labels, "lower_body", joints)
    released = inpainting_mask(labels, "lower_body", joints, compatible=True)
    skirt = of(labels, "skirt")
    assert mended[skirt].all()
    # Of the skirt, the released code changes only what the legs' margin reaches.
    assert 0 < released[skirt].mean() < 0.2
    only = mended & ~released
    margin = np.zeros_like(skirt)
    margin[245:370, 124:260] = True
    assert not (released & ~mended).any() and not only[~margin].any()


@pytest.mark.parametrize("mode", ["mask", "bounding_box"])
@pytest.mark.parametrize("category", CATEGORIES)
def test_compatible_is_the_same_mask_where_no_bug_is(category, mode):
    labels, joints = drawn_people.labels(WORN[category]), drawn_people.keypoints()
    ours, released = (
        inpainting_mask(labels, category, joints, mode=mode, compatible=switch) for switch in (False, True)
    )
    np.testing.assert_array_equal(ours, released)


def test_missing_joints_draw_no_line_to_the_corner():
    labels, joints = drawn_people.labels(), drawn_people.keypoints()
    joints[[3, 4, 7]] = 0  # the right elbow and both wrists
    assert inpainting_mask(labels, "upper_body", joints, compatible=True)[:20, :20].any()
    mask = inpainting_mask(labels, "upper_body", joints)
    assert not mask[:40].any()
    assert mask[150, 250] and not mask[200, 120]  # the left upper arm; of the right arm nothing is known


def test_the_face_of_a_small_person_and_without_shoulders_stays():
    labels, joints = np.zeros((512, 384), np.uint8), drawn_people.keypoints()
    small = drawn_people.labels()[::6, ::6]
    labels[100 : 100 + small.shape[0], 100 : 100 + small.shape[1]] = small
    joints[:, :2] = joints[:, :2] / 6 + 100
    face = np.zeros_like(labels, bool)
    face[107:114, 129:135] = True
    assert inpainting_mask(labels, "upper_body", joints, compatible=True)[face].any()
    assert not inpainting_mask(labels, "upper_body", joints)[face].any()
    lost = drawn_people.keypoints()
    lost[[2, 5]] = 0
    labels = drawn_people.labels()
    assert not inpainting_mask(labels, "upper_body", lost)[of(labels, "head") & (np.arange(512) < 90)[:, None]].any()


def test_without_keypoints_arms_stay():
    labels = drawn_people.labels()
    mask = inpainting_mask(labels, "upper_body")
    assert mask[of(labels, "upper")].all()
    assert not mask[of(labels, "left arm", "right arm", "head", "pants")].any()


def test_vitonhd_rules_keep_the_head_and_take_wider_arms():
    labels, joints = drawn_people.labels(), drawn_people.keypoints()
    wide, narrow = (inpainting_mask(labels, "upper_body", joints, rules=rules) for rules in ("vitonhd", "dresscode"))
    assert not wide[of(labels, "head")].any()
    assert wide[180].sum() > narrow[180].sum()
    with pytest.raises(UserError, match="'lower_body' has no vitonhd mask rule"):
        inpainting_mask(labels, "lower_body", joints, rules="vitonhd")


def test_a_box_of_the_users():
    labels = drawn_people.labels()
    mask = box_mask((100, 50, 200, 150), labels.shape)
    assert mask.sum() == 200 * 150 and mask[50, 100] and mask[199, 299]
    kept = kept_parts(labels, "upper_body", drawn_people.keypoints())
    assert not box_mask((100, 50, 200, 150), labels.shape, keep=kept)[of(labels, "hair")].any()


@pytest.mark.parametrize("box", [(-1, 0, 5, 5), (380, 0, 5, 5), (0, 0, 0, 5), (0, 510, 5, 5), (0, 0, 384, 512)])
def test_an_impossible_box_is_named(box):
    with pytest.raises(UserError, match=f"box {','.join(map(str, box))}: "):
        box_mask(box, (512, 384))


def test_mask_files(tmp_path):
    image = np.zeros((512, 384, 3), np.uint8)
    image[10:20, 30:50] = 255
    save_image(tmp_path / "m.png", image)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", (512, 384)), image[..., 0] > 0)
    save_image(tmp_path / "black.png", np.zeros_like(image))
    save_image(tmp_path / "white.png", np.full_like(image, 255))
    for name, shape, words in (
        ("m.png", (384, 512), "mask is 384x512, the person 512x384"),
        ("black.png", (512, 384), "black.png: marks nothing"),
        ("white.png", (512, 384), "white.png: marks the whole picture"),
        ("none.png", (512, 384), "none.png: cannot be read"),
    ):
        with pytest.raises(UserError, match=words):
            read_mask(tmp_path / name, shape)
    # A person of 512x384 that was read at 256x192: the files have one size.
    small = read_mask(tmp_path / "m.png", (256, 192), frame=(512, 384))
    np.testing.assert_array_equal(small, image[1::2, 1::2, 0] > 0)
    with pytest.raises(UserError, match="one size"):
        read_mask(tmp_path / "m.png", (256, 192), frame=(500, 384))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"category": "shoes"}, "category 'shoes'.*upper_body"),
        ({"category": "dresses"}, "nothing to change for dresses"),
        ({"mode": "round"}, "mask mode 'round'"),
        ({"rules": "mine"}, "mask rules 'mine'"),
    ],
)
def test_bad_choices_are_named(change, words):
    labels = np.full((64, 48), CLASSES["upper"], np.uint8)
    with pytest.raises(UserError, match=words):
        inpainting_mask(**{"labels": labels, "category": "upper_body"} | change)
