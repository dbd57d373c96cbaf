"""What photos can tell: retrieval by someone who knows the garment itself, but not what no photo shows.

A photo shows a garment, not its flat-lay: how straight it will lie and how its sleeves will be bent is drawn for the
flat-lay alone. So each held-out garment is laid down anew, many times, and the landmark is the one of the memory with
the highest mean IoU with these: the best choice there is for whoever sees all of the garment and nothing of its lay.

In the second row its width is not known either, but measured in the photo, where bodies, hangers and the camera changed
it (`stretch.draw_widths`): each lay is as wide as the photo shows it, over a width that might have been drawn.
"""

import jax.numpy as jnp
import numpy as np
from PIL import Image

from benchmarks.tiny_world.retrieval import means, oracle, random_choice, ways
from benchmarks.tiny_world.world import World
from ragdiff_jax.data.synth import render_flat
from ragdiff_jax.data.synth.garment import laid_anew
from ragdiff_jax.data.synth.stretch import draw_widths
from ragdiff_jax.data.synth.wild import render_scene
from ragdiff_jax.data.synth_records import drawn_garment
from ragdiff_jax.errors import UserError
from ragdiff_jax.evaluation.retrieval import ACCURATE, mask_ious
from ragdiff_jax.retrieval.landmarks import OFFERED, covering

LAYS = 24
_PHOTO = 32  # pixels a side are enough to learn how a photo was taken


def run(world: World) -> dict:
    name, seed = world.main, world.arguments.seed
    size = world.image_size(name)
    pairs, groups, leaks = world.pairs(size, world.arguments.pairs)
    memory = world.memory(name, leaks)
    landmarks = np.asarray(memory.landmarks)  # passed over once for each garment
    ious = mask_ious(pairs.masks, landmarks)
    floor, ceiling = random_choice(ious), oracle(ious)
    chosen: dict[str, list] = {"lay": [], "lay and width": []}  # of each photo (five likeliest, five offered)
    for id in pairs.ids:
        lays, wide = _lays(id, size, seed)
        for unknown, silhouettes in zip(chosen.values(), (lays, wide), strict=True):
            shared = mask_ious(silhouettes, landmarks)
            unknown.append((np.argsort(-shared.mean(axis=0))[:5], _offered(shared)))
    rows = []
    for unknown, picks in chosen.items():
        found, offered = (np.take_along_axis(ious, np.stack(some), axis=1) for some in zip(*picks, strict=True))
        known = {"top1": found[:, 0] > ACCURATE, "top5": (found > ACCURATE).any(axis=1), "iou": found[:, 0]}
        known |= {"offered": (offered > ACCURATE).any(axis=1), "best_offered_iou": offered.max(axis=1)}
        row = {"table": "bound", "unknown": unknown, "photos": len(pairs.ids), "memory": len(memory), "lays": LAYS}
        rows.append(row | means(known, seed, groups) | ways(known, floor, ceiling, seed, groups))
    note = (
        f"The garment is known and its lay is not: the landmark of the highest mean IoU with {LAYS} lays of the same "
        "garment; top5: one of the five highest is right, offered: one of five that cover the lays best. No model of "
        "photos can be expected to choose better. In the second row its width comes from the photo, by someone who "
        "doesn't know which widths are common; who is worn, hidden or cut off by the frame is known all the same."
    )
    return {"rows": rows, "notes": [note]}


def _offered(shared: np.ndarray) -> np.ndarray:
    """The garments of the memory that would be offered by who knows of lays alone, each as likely [LAYS, m]."""
    lays, garments = shared.shape
    chances, usable = jnp.full((1, lays), 1 / lays), jnp.ones((1, garments), bool)
    return np.asarray(covering(jnp.asarray(shared.T[None]), chances, usable, OFFERED))[0]


def _lays(id: str, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Silhouettes bool [LAYS, size, size] of one garment, each laid down anew: as wide as it is, and as its photo says.
    """
    kind, *rest = id.split("-")
    if kind != "synth" or len(rest) != 2:
        raise UserError(f"{id}: the bound needs drawn garments of the ordinary series, whose lay can be drawn anew")
    data_seed, index = map(int, rest)
    spec, own = drawn_garment(index, data_seed)
    view = render_scene(spec, own, _PHOTO).view
    rng = np.random.default_rng([seed, data_seed, index])
    lays = rng.integers(2**31, size=LAYS)
    masks = np.stack([render_flat(laid_anew(spec, int(lay)), size)[1] for lay in lays])
    widths = draw_widths(rng, view, 1) / draw_widths(rng, view, LAYS)
    return masks, np.stack([_widened(mask, width) for mask, width in zip(masks, widths, strict=True)])


def _widened(mask: np.ndarray, width: float) -> np.ndarray:
    """The silhouette, so many times as wide, in the middle and with its longer side as long as before."""
    (top, bottom), (left, right) = ((at.min(), at.max() + 1) for at in np.nonzero(mask))
    high, wide = bottom - top, (right - left) * width
    scale = max(bottom - top, right - left) / max(high, wide)
    high, wide = max(1, round(high * scale)), max(1, round(wide * scale))
    part = Image.fromarray(mask[top:bottom, left:right]).convert("L").resize((wide, high), Image.Resampling.BILINEAR)
    out = np.zeros_like(mask)
    y, x = (mask.shape[0] - high) // 2, (mask.shape[1] - wide) // 2
    out[y : y + high, x : x + wide] = np.asarray(part) > 127
    return out
