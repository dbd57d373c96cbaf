"""Sleeves: their pattern around the shoulder point, and how each is laid in the flat-lay."""

import dataclasses

import numpy as np

from ragdiff_jax.data.synth.cutting import Piece, curve, mirror
from ragdiff_jax.data.synth.shape import Shape, SleeveLay


@dataclasses.dataclass(frozen=True)
class Flap:
    """A stiff part of a laid sleeve: what of the sleeve it keeps, and where that lies.

    The points p with (p - point) @ normal >= 0 are kept (all where `normal` is None); p lies at matrix @ p + shift.
    """

    point: np.ndarray
    normal: np.ndarray | None
    matrix: np.ndarray
    shift: np.ndarray
    above: bool  # over the body

    def place(self, points: np.ndarray) -> np.ndarray:
        if self.normal is not None:
            points = points[(points - self.point) @ self.normal >= 0]
        return points @ self.matrix.T + self.shift


def sleeve_pieces(s: Shape) -> list[Piece]:
    if s.sleeve_length <= 0:
        return []
    polygon, cuff = _sleeve(s)
    pieces = []
    for group, flip in (("right", False), ("left", True)):
        if s.collar == "One-shoulder" and (s.side > 0) == flip:
            continue
        pieces.append(Piece(group, "sleeve", mirror(polygon) if flip else polygon))
        if cuff is not None:
            pieces.append(Piece(group, "trim", mirror(cuff) if flip else cuff))
    return pieces


def _axes(s: Shape) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The right shoulder point, along the sleeve, and across it from the outer to the inner edge."""
    along = np.array([np.sin(s.sleeve_angle), np.cos(s.sleeve_angle)])
    return np.array([s.shoulder, s.slope]), along, np.array([-along[1], along[0]])


def _sleeve(s: Shape) -> tuple[np.ndarray, np.ndarray | None]:
    """The right sleeve around the shoulder point, and its cuff or None."""
    pivot, along, across = _axes(s)
    length, kind = s.sleeve_length, s.sleeve_shape
    inside = min(0.07, 0.5 * (s.shoulder - s.neck_width))
    top = np.array([s.shoulder - inside, s.slope * (1 - inside / (s.shoulder - s.neck_width)) + 0.008])
    under = np.array([s.chest * 0.97, s.slope + s.armhole])
    outer = pivot + along * length - across * (0.01 + (0.3 * s.cuff if kind == "bell" else 0.0))
    inner = outer + across * s.cuff
    round_off = np.array([s.shoulder + 0.01, s.slope]) + along * 0.08 * length
    middle, bulge = (pivot + outer) / 2, -across * s.sleeve_bulge * length
    extra = max(s.sleeve_bulge, 0.0)
    up, end = round_off, middle + bulge
    low, turn = inner * 0.65 + under * 0.35 - bulge * 0.4, under + along * 0.12
    if kind == "puff":
        up, end = pivot - across * (0.13 + extra) - along * 0.06, outer - across * (0.13 + extra) - along * 0.03
        low = inner + across * (0.06 + 0.6 * extra) - along * 0.02
    elif kind == "bishop":
        end = outer - along * 0.12 * length - across * (0.16 + extra)
        low, turn = inner - along * 0.12 * length + across * (0.16 + extra), under + along * 0.3 * length
    elif kind == "bell":
        end = pivot + along * 0.6 * length + across * 0.03
        low = inner - along * 0.42 * length - across * 0.6 * s.cuff
    elif kind == "batwing":
        low, turn = inner - along * 0.4 * length, under + along * 0.05
    tip = outer + (along * 0.06 if kind == "cap" else 0.0)
    polygon = np.concatenate(
        [
            top[None],
            curve(top, up, end, outer, 14),
            curve(outer, tip, inner + (tip - outer), inner, 5),
            curve(inner, low, turn, under, 12),
            under[None],
            np.array([[s.shoulder * 0.72, s.slope + s.armhole * 0.75]]),
        ]
    )
    if s.quilt and s.quilt_kind == "bands":
        polygon[1:15] -= across * 0.02 * np.abs(np.sin(np.arange(14) * np.pi / 2.5))[:, None]
    cuffed = s.rib or s.rolled or kind in ("puff", "bishop")
    cuffed = cuffed or (s.collar in ("Shirt", "Stand-up", "Rounded") and length > 0.9 and kind == "straight")
    if not cuffed or kind in ("bell", "wide", "cap"):
        return polygon, None
    depth = 0.17 if s.rolled else s.rib or (0.05 if length < 0.5 else 0.08)
    grow = across * (0.02 if s.rolled else -0.004)
    back, inner_back = outer - along * depth, inner - along * depth + across * 0.01
    cuff = np.stack([back - grow, outer - grow, inner + grow, inner_back + grow])
    return polygon, cuff


def _turned(angle: float) -> np.ndarray:
    """Turns the right sleeve outwards by `angle`."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, sin], [-sin, cos]])


def flaps(s: Shape, group: str) -> tuple[Flap, ...]:
    """How the sleeve of `group` is laid; empty where it lies as it was cut."""
    of: SleeveLay = s.lays[1 if group == "right" else 0]
    if s.sleeve_length <= 0 or (of.kind == "straight" and abs(of.turn) < 0.03):
        return ()
    pivot, along, across = _axes(s)
    turn = _turned(of.turn)
    at = pivot - turn @ pivot
    if of.kind == "straight":
        found = [Flap(pivot, None, turn, at, False)]
    else:
        half = 0.5 * (s.armhole * 0.9 * (1 - of.at) + s.cuff * of.at)
        elbow = pivot + along * of.at * s.sleeve_length + across * half
        if of.kind == "bent":
            normal, hinge = along, elbow - across * (half + 0.02)
            bend = _turned(-of.angle)
        else:
            axis = _turned(-of.angle / 2) @ along
            normal, hinge = np.array([axis[1], -axis[0]]), elbow
            normal = normal if normal @ along > 0 else -normal
            bend = 2 * np.outer(axis, axis) - np.eye(2)
        upper = Flap(elbow + normal * 0.012, -normal, turn, at, of.kind == "bent")
        matrix = turn @ bend
        lower = Flap(elbow, normal, matrix, turn @ (hinge - bend @ hinge) + at, True)
        found = [upper, lower]
    return tuple(found if group == "right" else (_mirrored(flap) for flap in found))


def _mirrored(flap: Flap) -> Flap:
    flip = np.diag([-1.0, 1.0])
    normal = None if flap.normal is None else flip @ flap.normal
    return Flap(flip @ flap.point, normal, flip @ flap.matrix @ flip, flip @ flap.shift, flap.above)
