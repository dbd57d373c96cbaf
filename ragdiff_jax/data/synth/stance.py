"""How a drawn person stands: joints in body units (chest widths, x right, y down, from the base of the neck)."""

import dataclasses

import numpy as np

from ragdiff_jax.data.synth.garment import GarmentSpec
from ragdiff_jax.data.synth.shape import pick_index
from ragdiff_jax.data.synth.stretch import NARROW
from ragdiff_jax.data.synth.warp import Arm

# COCO-18 as OpenPose orders it; left and right are the person's own.
KEYPOINTS = (
    "nose", "neck", "right shoulder", "right elbow", "right wrist", "left shoulder", "left elbow",
    "left wrist", "right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle",
    "right eye", "left eye", "right ear", "left ear",
)  # fmt: skip

STANCES = ("standing", "hips", "pockets", "bent", "walking", "phone", "sitting")
_CHANCES = (0.36, 0.1, 0.12, 0.14, 0.16, 0.07, 0.05)

WAIST = 0.84  # where a bottom's origin lies on the body
HIP, KNEE, ANKLE = 1.14, 1.98, 2.76
_UPPER_ARM, _FOREARM = 0.56, 0.5


@dataclasses.dataclass(frozen=True)
class Stance:
    """A pose: two arms (image left, image right), two legs as [hip, knee, ankle] points, the turn of the body.

    `front` says for each arm whether its forearm lies before the trunk. `yaw` > 0 turns to the image's right.
    """

    kind: str
    yaw: float
    arms: tuple[Arm, Arm]
    front: tuple[bool, bool]
    legs: np.ndarray  # [2, 3, 2]
    head: float  # the head's own turn, added to the body's
    narrow: float
    phone: int | None  # the arm that holds one up

    def arm_line(self, side: int) -> np.ndarray:
        """Shoulder, elbow, wrist of the image's left (0) or right (1) arm, [3, 2]."""
        arm = self.arms[side]
        points = np.array([arm.shoulder, arm.elbow, arm.beyond(_FOREARM)])
        return points * np.array([1.0 if side else -1.0, 1.0])

    def near(self) -> int | None:
        """The arm nearer to the camera when the body is turned far."""
        return None if abs(self.yaw) < 0.5 else 0 if self.yaw > 0 else 1


def draw_stance(rng: np.random.Generator, spec: GarmentSpec, *, bottom: bool) -> Stance:
    """A stance in which the garment can be seen; `bottom` for what is worn from the waist down."""
    u = rng.uniform
    kind = STANCES[pick_index(rng, _CHANCES)]
    if kind == "sitting" and (bottom or spec.category == "Dress" or spec.shape.body_length > 1.5):
        kind = "standing"
    turned = u()
    yaw = u(-0.12, 0.12) if turned < 0.55 else u(0.25, 0.7) if turned < 0.88 else u(0.8, 1.15)
    yaw *= 1 if u() < 0.5 else -1
    if kind in ("hips", "phone", "sitting"):
        yaw *= 0.4
    upper, fore = u(0.05, 0.28, 2), u(-0.12, 0.14, 2)
    fore += upper - 0.06
    reach, front, phone = np.ones((2, 2)), [False, False], None
    if kind == "hips":
        one = u() < 0.3
        for side in (0, 1):
            if not one or side == 0:
                upper[side], fore[side] = u(0.6, 0.85), -u(0.75, 1.0)
    elif kind == "pockets":
        upper, fore = u(0.18, 0.34, 2), -u(0.2, 0.4, 2)
    elif kind in ("bent", "phone"):
        side = int(rng.integers(2))
        for one in (0, 1) if kind == "bent" and u() < 0.25 else (side,):
            upper[one], fore[one] = u(0.05, 0.3), -u(1.1, 2.1)
            reach[one] = u(0.85, 1.0), u(0.7, 1.0)
            front[one] = True
        if kind == "phone":
            fore[side], reach[side, 1], phone = -u(2.1, 2.6), u(0.75, 1.0), side
    elif kind == "walking":
        swing = u(0.05, 0.3)
        upper = np.array([swing, 0.34 - swing]) if u() < 0.5 else np.array([0.34 - swing, swing])
        fore = upper - u(0.0, 0.3, 2)
        reach[int(rng.integers(2)), 1] = u(0.6, 0.95)
    narrow = u(*NARROW["worn"])
    turned_narrow = float(np.sqrt(np.cos(yaw) ** 2 + (0.62 * np.sin(yaw)) ** 2))
    half = float(np.clip(spec.shape.shoulder * narrow - 0.05, 0.31, 0.45)) if not bottom else u(0.32, 0.4)
    drop = float(np.clip(spec.shape.slope, 0.04, 0.18)) if not bottom else 0.1
    arms = tuple(
        Arm(
            shoulder=(half * abs(np.cos(yaw)) ** 0.5 * turned_narrow**0.5, drop + 0.08),
            upper=float(upper[side] * (1 - 0.4 * abs(yaw))),
            fore=float(fore[side] * (1 - 0.25 * abs(yaw))),
            elbow_at=_UPPER_ARM,
            reach=(float(reach[side, 0]), float(reach[side, 1])),
        )
        for side in (0, 1)
    )
    return Stance(
        kind=kind,
        yaw=float(yaw),
        arms=arms,
        front=(front[0], front[1]),
        legs=_draw_legs(rng, kind, turned_narrow),
        head=float(np.clip(rng.normal(0, 0.25), -0.6, 0.6)),
        narrow=narrow * turned_narrow,
        phone=phone,
    )


def _draw_legs(rng, kind: str, narrow: float) -> np.ndarray:
    u = rng.uniform
    hips = np.array([-0.18, 0.18]) * narrow
    legs = np.zeros((2, 3, 2))
    for side, sign in ((0, -1), (1, 1)):
        spread = u(0.0, 0.09)
        knee = np.array([hips[side] + sign * spread * 0.6 + u(-0.02, 0.02), KNEE])
        ankle = np.array([hips[side] + sign * (spread - 0.04), ANKLE])
        if kind == "walking":
            step = u(0.05, 0.14)
            knee[0] += step * (1 if side else -0.4) * narrow
            ankle += np.array([step * (0.8 if side else -1.4), -0.12 * (side == 0)])
        if kind == "sitting":
            knee = np.array([hips[side] * 1.5 + sign * u(0.0, 0.1), HIP + u(0.28, 0.4)])
            ankle = knee + np.array([sign * u(-0.06, 0.08), u(0.7, 0.8)])
        legs[side] = [[hips[side], HIP], knee, ankle]
    return legs


def head_points(stance: Stance) -> dict[str, tuple[np.ndarray, bool]]:
    """Nose, eyes and ears in body units, and whether each is on the side of the head that shows."""
    turn = float(np.clip(stance.yaw * 0.8 + stance.head, -1.3, 1.3))
    sin, cos = np.sin(turn), np.cos(turn)
    centre = np.array([0.04 * np.sin(stance.yaw), -0.36])
    solid = {
        "nose": (0.0, 0.03, 0.17),
        "right eye": (-0.068, -0.03, 0.14),
        "left eye": (0.068, -0.03, 0.14),
        "right ear": (-0.155, 0.01, -0.01),
        "left ear": (0.155, 0.01, -0.01),
    }
    points = {}
    for name, (x, y, z) in solid.items():
        seen = z * cos - x * sin > (-0.05 if "ear" in name else 0.02)
        points[name] = (centre + np.array([x * cos + z * sin, y]), bool(seen))
    return points


def keypoints(stance: Stance, to_target, size: int) -> np.ndarray:
    """COCO-18 joints, float32 [18, 3]: x and y in pixels and a confidence.

    1 where the joint is in the frame, 0.5 where the body itself hides it; a joint outside the frame or on
    the far side of the head is (0, 0, 0), as OpenPose writes what it doesn't find.
    """
    right, left = stance.arm_line(0), stance.arm_line(1)
    face = head_points(stance)
    middle = (right[0] + left[0]) / 2
    joints = [face["nose"][0], middle, *right, *left, *stance.legs[0], *stance.legs[1]]
    joints += [face[name][0] for name in KEYPOINTS[14:]]
    confidence = np.ones(18)
    near = stance.near()
    if near is not None:
        far = (3, 4) if near == 1 else (6, 7)
        confidence[list(far)] = 0.5
    pixels = to_target(np.array(joints))
    inside = ((pixels >= 0) & (pixels < size)).all(-1)
    inside[[0, 14, 15, 16, 17]] &= [face[KEYPOINTS[i]][1] for i in (0, 14, 15, 16, 17)]
    found = np.concatenate([pixels, confidence[:, None]], -1)
    return np.where(inside[:, None], found, 0).astype(np.float32)
