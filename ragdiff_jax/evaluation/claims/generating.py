"""Flat-lays made under one change at a time, scored beside the truth; each arm is kept on its own."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, UInt8

from ragdiff_jax.data.silhouettes import flat_mask
from ragdiff_jax.evaluation.analyze import Pairs
from ragdiff_jax.evaluation.claims.light import balanced, lit
from ragdiff_jax.evaluation.claims.store import Measured
from ragdiff_jax.evaluation.claims.world import World
from ragdiff_jax.evaluation.pair_scores import PairScores, without_features
from ragdiff_jax.evaluation.retrieval import mask_ious
from ragdiff_jax.pipelines.generate import GarmentGenerator
from ragdiff_jax.pipelines.panel import Cell, draw_panel
from ragdiff_jax.pipelines.retrieved import Generated
from ragdiff_jax.retrieval.landmarks import iou

METRICS = ("ssim", "ssim_aligned", "silhouette_iou", "ciede2000_aligned", "colour_bias", "kid_random")
SHOWN = 8  # garments on a sheet
SAME = 0.97  # silhouettes of a higher IoU are one shape
Light = Literal["", "dark", "bright"]
Images = UInt8[np.ndarray, "n s s 3"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """How one set of flat-lays is made.

    Attributes:
      part: the held-out pairs. memory: of `World.memory`. neighbours: K, 0 is the model's.
      known: whether the photos' attributes are given. adapter: EP-Adapter's gate.
      light: photos under- or overexposed; balance: and set right again by `light.balanced`.
      foreign: the silhouette of another garment of the memory, one for each batch, in the place of the retrieved one.
    """

    part: str = "held_out"
    memory: str = "whole"
    neighbours: int = 0
    known: bool = True
    adapter: float = 1.0
    light: Light = ""
    balance: bool = False
    foreign: bool = False


def generation(world: World, seed: int, arm: Arm, folder: Path | None = None) -> Measured:
    """The scores of `METRICS`, `landmark_iou` (the silhouette used beside the truth), `follows` (the drawn silhouette
    beside the one used) and `seconds_*` of an arm, by the stem or the model folder given.
    """
    part = world.part(arm.part)
    photos = [np.asarray(photo) for photo in part.pairs.photos]
    if arm.light:
        photos = [lit(photo, arm.light) for photo in photos]
    if arm.balance:
        photos = [balanced(photo) for photo in photos]
    generator = world.generator(folder or world.stem, arm.memory, neighbours=arm.neighbours, adapter=arm.adapter)
    attributes = [part.attributes[row] if arm.known else {} for row in range(len(part))]
    rng, results = np.random.default_rng(seed), []
    for batch, start in enumerate(range(0, len(photos), world.budget.batch)):
        # One noise for all would be one draw of chance that no interval shows; the arms share each batch's.
        some = slice(start, start + world.budget.batch)
        landmark = None
        if arm.foreign:
            landmark = np.asarray(generator.memory.landmarks[rng.integers(len(generator.memory))])
        results += made(world, generator, photos[some], attributes[some], seed * 10_000 + batch, landmark=landmark)
    images = np.stack([result.image for result in results])
    landmarks = np.stack([result.retrieved.landmark for result in results])
    columns = scores(images, part.pairs, world.budget.batch)
    drawn = np.stack([flat_mask(image) for image in images])
    columns["landmark_iou"], columns["follows"] = ious(landmarks, part.pairs.masks), ious(drawn, landmarks)
    columns["truth_iou"] = ious(drawn, part.pairs.masks)
    for name in ("retrieve", "denoise"):
        columns[f"seconds_{name}"] = np.array([result.seconds[name] for result in results])
    shown = zip(photos[:SHOWN], part.pairs.flats, landmarks, images, strict=False)
    rows = [
        [Cell(picture=photo, title="photo"), Cell(picture=landmark, title="silhouette"),
         Cell(picture=image, title="made"), Cell(picture=flat, title="truth")]
        for photo, flat, landmark, image in shown
    ]  # fmt: skip
    return Measured(
        columns=columns, groups=part.groups, facts={"photos": len(part)}, sheet=draw_panel(rows, cell=96)
    )


def control(world: World, seed: int) -> Measured:
    """R Fig. 11: each photo once with each neighbour's silhouette. Of a photo, means over the picks that can be told
    apart: `hit` (the drawn silhouette is likest to the picked one), `chance`; CIEDE2000 of the mean colour between two
    picks of the photo (`own_colour`), and to another photo's flat-lay (`other_colour`).
    """
    part = world.part("held_out")
    count = max(4, len(part) // 2)
    generator = world.generator(world.stem, "whole", neighbours=0, adapter=1.0)
    k, photos, attributes = generator.model.neighbours, list(part.pairs.photos[:count]), part.attributes[:count]
    images, masks = [], None
    for landmark in range(k):
        results: list[Generated] = []
        for batch, start in enumerate(range(0, count, world.budget.batch)):
            some = slice(start, start + world.budget.batch)
            results += made(world, generator, photos[some], attributes[some], seed * 10_000 + batch, landmark=landmark)
        images.append(np.stack([result.image for result in results]))
        masks = np.stack([generator.memory.landmarks[list(result.retrieved.rows)] for result in results])
    picks, _ = control_picks(np.stack(images, axis=1), masks)
    first, second, other = images[0], images[1 % k], np.roll(images[0], 2, axis=0)  # 2: past the twin
    own, far = _colours(first, second, world.budget.batch), _colours(first, other, world.budget.batch)
    columns = of_photos(picks, count) | {"own_colour": own, "other_colour": far}
    rows = [
        [Cell(picture=photos[i], title="photo")]
        + [
            cell
            for j in range(k)
            for cell in (Cell(picture=masks[i, j], title=f"neighbour {j}"), Cell(picture=images[j][i], title="made"))
        ]
        for i in range(min(SHOWN, count))
    ]
    facts = {"photos": count, "photos with silhouettes to tell apart": len({pick.photo for pick in picks})}
    return Measured(columns=columns, groups=part.groups[:count], facts=facts, sheet=draw_panel(rows, cell=96))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pick:
    """One photo with one neighbour's silhouette: was it taken, its IoU with what was drawn, what chance gives."""

    photo: int
    pick: int
    hit: bool
    own: float
    chance: float


def control_picks(
    images: UInt8[np.ndarray, "n k s s 3"], masks: Bool[np.ndarray, "n k s s"]
) -> tuple[list[Pick], int]:
    """(picks that can be told apart, comparisons left out); `images[i, j]` was made of photo i with `masks[i, j]`.

    A hit: the drawn silhouette's IoU with the picked one is above that with every other (a tie is none). Others that
    are the picked one's double (IoU above 0.97) are no rivals, and a pick without rivals doesn't count.
    """
    picks, similar = [], 0
    for photo in range(len(images)):
        drawn = mask_ious(np.stack([flat_mask(image) for image in images[photo]]), masks[photo])
        between = mask_ious(masks[photo], masks[photo])
        for pick in range(images.shape[1]):
            rivals = [i for i in range(images.shape[1]) if i != pick and between[pick, i] <= SAME]
            similar += images.shape[1] - 1 - len(rivals)
            if rivals:
                own = float(drawn[pick, pick])
                hit = bool(own > drawn[pick, rivals].max())
                picks.append(Pick(photo=photo, pick=pick, hit=hit, own=own, chance=1 / (1 + len(rivals))))
    return picks, similar


def of_photos(picks: Sequence[Pick], count: int) -> dict[str, Float[np.ndarray, " n"]]:
    """Means over each photo's picks, `hit` and `chance`; both 0 for a photo without any."""
    columns = {name: np.zeros(count) for name in ("hit", "chance")}
    for photo in {pick.photo for pick in picks}:
        own = [pick for pick in picks if pick.photo == photo]
        columns["hit"][photo] = np.mean([pick.hit for pick in own])
        columns["chance"][photo] = np.mean([pick.chance for pick in own])
    return columns


def made(
    world: World,
    generator: GarmentGenerator,
    photos: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    attributes: Sequence[Mapping[str, str]],
    seed: int,
    **options,
) -> list[Generated]:
    """One batch; a single photo goes through the batch's program too, whose sums are taken in one order."""
    count = len(photos)
    photos, attributes = list(photos), list(attributes)
    if count == 1 and generator.batch_size > 1:
        photos, attributes = photos * 2, attributes * 2
    results = generator.generate(photos, attributes, steps=world.budget.steps, seed=seed, **options)[:count]
    world.step(count)
    return results


def scores(images: Images, pairs: Pairs, batch: int) -> dict[str, Float[np.ndarray, " n"]]:
    """Of generated flat-lays beside the true ones; KID as pseudo-values."""
    return without_features(_pair_scores(METRICS, pairs.flats, images, batch), METRICS)[0]


_scorer = functools.lru_cache(maxsize=4)(lambda metrics, batch: PairScores(metrics, batch=batch))


def _pair_scores(metrics, real: Images, fake: Images, batch: int) -> dict[str, np.ndarray]:
    run, parts = _scorer(metrics, batch), range(0, len(real), batch)
    found = [run(real[at : at + batch], fake[at : at + batch], [None] * len(real[at : at + batch])) for at in parts]
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def ious(a: Bool[np.ndarray, "n h w"], b: Bool[np.ndarray, "n h w"]) -> Float[np.ndarray, " n"]:
    return np.asarray(iou(jnp.asarray(a), jnp.asarray(b)), np.float64)


def _colours(a: Images, b: Images, batch: int) -> Float[np.ndarray, " n"]:
    """CIEDE2000 between the mean colours inside the two pictures' own silhouettes."""
    return _pair_scores(("colour_bias",), a, b, batch)["colour_bias"]
