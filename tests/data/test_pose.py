import json

import drawn_people
import jax
import numpy as np
import pytest
import torch
from quick import quick_jit

from ragdiff_jax.data.pose import BODY_25, JOINTS, parse_keypoints, pose_maps, read_keypoints
from ragdiff_jax.errors import UserError

# BODY-25's points by name, in OpenPose's order.
BODY_25_NAMES = (
    "nose", "neck", "right shoulder", "right elbow", "right wrist", "left shoulder", "left elbow", "left wrist",
    "mid hip", "right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle",
    "right eye", "left eye", "right ear", "left ear", "left big toe", "left small toe", "left heel",
    "right big toe", "right small toe", "right heel",
)  # fmt: skip


def openpose(rows):
    return json.dumps({"people": [{"pose_keypoints_2d": np.asarray(rows, float).ravel().tolist()}]}).encode()


def test_body_25_maps_to_the_joint_of_the_same_name():
    assert tuple(BODY_25_NAMES[row] for row in BODY_25) == JOINTS
    rows = np.stack([np.arange(25) + 1, np.arange(25) + 2, np.ones(25)], 1)
    np.testing.assert_array_equal(parse_keypoints(openpose(rows), (64, 48)), rows[list(BODY_25)])


def test_coco_18_and_dress_code_rows_are_taken_as_they_are():
    joints = drawn_people.keypoints()
    np.testing.assert_array_equal(parse_keypoints(openpose(joints), (512, 384)), joints)
    rows = [[*row, index] for index, row in enumerate(joints.astype(float).tolist())]
    data = json.dumps({"keypoints": rows}).encode()
    found = parse_keypoints(data, (1024, 768), frame=(512, 384))
    np.testing.assert_allclose(found, joints * (2, 2, 1))


def test_joints_that_were_not_found_are_zero_and_those_on_the_border_stay():
    joints = drawn_people.keypoints()
    joints[3] = 0
    joints[4] = (-1, -1, 0.5)
    joints[5, 2] = 0
    joints[0] = (192, 0, 0.6)  # a head cut off by the frame: Dress Code has many
    found = parse_keypoints(openpose(joints), (512, 384))
    assert not found[[3, 4, 5]].any()
    np.testing.assert_allclose(found[0], (192, 0, 0.6))


def test_another_person_is_chosen_by_number(tmp_path):
    joints = drawn_people.keypoints().astype(float)
    people = [{"pose_keypoints_2d": (joints * scale).ravel().tolist()} for scale in ((1, 1, 1), (0.5, 0.5, 1))]
    (tmp_path / "k.json").write_text(json.dumps({"people": people}))
    np.testing.assert_allclose(read_keypoints(tmp_path / "k.json", (512, 384), person=1), joints * (0.5, 0.5, 1))
    with pytest.raises(UserError, match="k.json: has 2 people, so no person 2"):
        read_keypoints(tmp_path / "k.json", (512, 384), person=2)


@pytest.mark.parametrize(("factor", "shift"), [(1, 0), (2, -1)])  # OpenPose's --keypoint_scale 3 and 4
def test_shares_of_the_picture_are_not_taken_for_pixels(factor, shift):
    joints = drawn_people.keypoints().astype(float)
    joints[:, :2] = joints[:, :2] / (384, 512) * factor + shift
    joints[7] = 0
    with pytest.raises(UserError, match="^p.json: .*shares of the picture, not pixels.*keypoint_scale 0"):
        parse_keypoints(openpose(joints), (512, 384), name="p.json")
    joints[1:] = 0  # one joint on the border may be a pixel's
    assert (parse_keypoints(openpose(joints), (512, 384)) != 0).any() == (joints[0, :2] > 0).any()
    joints[:2] = (0.5, 0.5, 1), (1, 0.5, 1)
    assert parse_keypoints(openpose(joints), (16, 12))[1, 0] == 1, "a picture so small has such pixels"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b" " * 5_000_000, "more than 4,000,000 bytes"),
        (b"[]", "neither 'people' nor 'keypoints'"),
        (b'{"people": []}', "0 people"),
        (b'{"people": {}}', "0 people"),
        (b'{"people": [3]}', "incomplete"),
        (b'{"people": [{}]}', "incomplete"),
        (b'{"people": [{"pose_keypoints_2d": [1, 2, 3]}]}', "has 3 numbers"),
        (b'{"people": [{"pose_keypoints_2d": null}]}', "has no numbers"),
        (json.dumps({"people": [{"pose_keypoints_2d": ["1"] * 54}]}).encode(), "incomplete"),
        (json.dumps({"people": [{"pose_keypoints_2d": [float("nan")] * 54}]}).encode(), "not finite"),
        (json.dumps({"people": [{"pose_keypoints_2d": [10**400] * 54}]}).encode(), "incomplete|not JSON"),
        (json.dumps({"keypoints": [[1, 2, 3, 0]] * 17}).encode(), "no 18 rows"),
        (json.dumps({"keypoints": [1] * 18}).encode(), "incomplete"),
        (openpose([[10, 20, 1]] * 3 + [[60, 20, 1]] + [[10, 20, 1]] * 14), r"right elbow at \(60, 20\).*48x64"),
    ],
)
def test_bad_json_is_one_line(data, words):
    with pytest.raises(UserError, match=f"^pose.json: .*({words})") as error:
        parse_keypoints(data, (64, 48), name="pose.json")
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_maps_peak_at_their_joint_and_missing_ones_are_zero():
    joints = drawn_people.keypoints()[None].repeat(2, 0)
    joints[1, [3, 9]] = 0
    joints[1, 4] = (500, 20, 1)  # outside, e.g. after a crop
    maps = np.asarray(quick_jit(lambda rows: pose_maps(rows, (512, 384)))(joints))
    assert maps.shape == (2, 512, 384, 18)
    for place, (x, y, _) in enumerate(joints[0].astype(int)):
        assert maps[0, y, x, place] == maps[0, ..., place].max() == 1
        np.testing.assert_allclose(maps[0, y, x + 9, place], np.exp(-1), rtol=1e-5)  # one sigma: no factor 2
    assert not maps[1][..., [3, 4, 9]].any() and maps[1][..., 0].max() == 1


def test_latent_maps_are_the_pictures_maps_resized_as_torch_does():
    joints = drawn_people.keypoints()
    joints[:, :2] += np.random.default_rng(0).uniform(-0.5, 0.5, (18, 2)).astype(np.float32)
    joints[0, 1] = 0
    y, x = np.mgrid[:512, :384]
    full = np.exp(-((x[..., None] - joints[:, 0]) ** 2 + (y[..., None] - joints[:, 1]) ** 2) / 81)
    full = (full / full.max((0, 1))).astype(np.float32)
    maps = jax.jit(pose_maps, static_argnums=(1, 2))
    np.testing.assert_allclose(np.asarray(maps(joints, (512, 384))), full, atol=1e-5)
    for shape in ((64, 48), (600, 400)):
        wanted = torch.nn.functional.interpolate(
            torch.from_numpy(full).permute(2, 0, 1)[None], size=shape, mode="bilinear"
        )[0].permute(1, 2, 0)
        np.testing.assert_allclose(np.asarray(maps(joints, (512, 384), shape)), wanted, atol=1e-5)


def test_gradients_are_finite_where_joints_are_missing():
    joints = np.full((18, 3), np.nan, np.float32)
    joints[:, 2] = 0
    joints[0] = (20, 30, 1)
    slope = jax.jit(jax.grad(lambda rows: pose_maps(rows, (64, 48), (8, 6))[..., 0].sum()))(joints)
    assert np.isfinite(slope).all() and np.abs(slope[0, :2]).max() > 0
