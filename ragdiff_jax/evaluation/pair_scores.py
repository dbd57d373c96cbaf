"""The numbers of one pair (true picture, generated picture), each with its protocol id."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, UInt8

from ragdiff_jax.data.silhouettes import flat_mask
from ragdiff_jax.errors import UserError
from ragdiff_jax.evaluation import alignment
from ragdiff_jax.evaluation.alignment import Box, align
from ragdiff_jax.evaluation.batches import Batched
from ragdiff_jax.evaluation.clip_scores import ClipScores
from ragdiff_jax.evaluation.colour import ciede2000, mean_ciede2000, mean_lab
from ragdiff_jax.evaluation.edits import PROTOCOL as EDITS
from ragdiff_jax.evaluation.fid import clean_resize, fid, fid_without_groups
from ragdiff_jax.evaluation.kid import kid_of_pairs
from ragdiff_jax.evaluation.logo import edge_correlation, psnr
from ragdiff_jax.evaluation.ms_ssim import LEAST_SIDE, ms_ssim
from ragdiff_jax.evaluation.networks import Networks
from ragdiff_jax.evaluation.random_features import PROTOCOL as RANDOM
from ragdiff_jax.evaluation.random_features import random_features, random_network
from ragdiff_jax.evaluation.ssim import ssim
from ragdiff_jax.models.clip_vision import CLIPVisionModel, preprocess
from ragdiff_jax.models.dists import dists
from ragdiff_jax.models.inception import SIDE as INCEPTION_SIDE
from ragdiff_jax.models.inception import inception
from ragdiff_jax.models.lpips import lpips

ALIGNED = "_aligned"
UPWARDS = {"ssim": True, "ms_ssim": True, "silhouette_iou": True, "ciede2000": False, "colour_bias": False}
NETS = ("alex", "vgg")
UPWARDS |= {f"lpips_{net}{end}": False for net in NETS for end in ("", ALIGNED)}
UPWARDS |= {"dists": False, "dists" + ALIGNED: False, "fid": False, "kid": False, "clip_fid": False}
UPWARDS |= {"clip_t": True, "clip_i": True}
UPWARDS |= {"kid_random": False, "logo_psnr": True, "logo_edges": True} | {
    name + ALIGNED: up for name, up in UPWARDS.items()
}
"""Of each metric whether more is better."""
PROTOCOLS = {
    "ssim": "ssim/gauss11-1.5/1",
    "ms_ssim": "ms-ssim/5-scales-mean2x2/1",
    "silhouette_iou": "silhouette-iou/border-median-10/3",
    "ciede2000": "ciede2000/pixels-in-true-mask/3",
    "colour_bias": "ciede2000/mean-lab-in-own-mask/3",
    "kid_random": f"kid/pairs/{RANDOM}",
    "logo_psnr": f"logo-psnr/rgb-at-most-100/1+{alignment.PROTOCOL}",
    "logo_edges": f"logo-edges/sobel-bt601/1+{alignment.PROTOCOL}",
}
PROTOCOLS |= {name + ALIGNED: f"{PROTOCOLS[name]}+{alignment.PROTOCOL}" for name in ("ssim", "ms_ssim", "ciede2000")}
METRICS = {
    "generation": tuple(PROTOCOLS),
    "editing": ("ssim", "ms_ssim", "kid_random"),
}
LOGO = ("logo_psnr", "logo_edges")
WORDS = ("clip_t", "clip_i")
# What needs networks that someone trained, and which; without them there is no number.
NEEDS = {"lpips_alex": ("alex",), "lpips_vgg": ("vgg",), "dists": ("dists",), "fid": ("inception",)}
NEEDS |= {"kid": ("inception",), "clip_fid": ("vision",), "clip_t": ("vision", "text"), "clip_i": ("vision",)}
FEATURES = {"kid_random": "random", "kid": "inception", "fid": "inception", "clip_fid": "vision"}
"""Metrics that follow from all pairs' features, and whose features."""
SETS = ("fid", "clip_fid")
"""Those of FEATURES that no pair has a value of."""
# FID of few pictures is mostly bias, of which no interval knows: of 200 from one distribution it is 488 in place of 0.
FEWEST = {"kid": 3, "kid_random": 3, "fid": 2000, "clip_fid": 2000}

Pictures = UInt8[np.ndarray, "b s s 3"]
Masks = Bool[np.ndarray, "b s s"]


def chosen_metrics(
    task: str, size: int, asked: list[str] | None, boxes: bool, nets: Sequence[str] = (), edits: bool = False
) -> tuple[str, ...]:
    """The metrics of a task, or those asked for.

    `boxes`: logos' are known; `nets`: networks that are here, of NEEDS; `edits`: masks, words and garments are known.

    Raises `UserError` naming what can't be measured and why.
    """
    learned = [name for name, needs in NEEDS.items() if set(needs) <= set(nets)]
    learned = [name for name in learned if edits or name not in WORDS]
    if task == "generation":
        learned += [name + ALIGNED for name in learned if name.startswith(("lpips", "dists"))]
    known = METRICS[task] + tuple(learned)
    for name in asked or ():
        plain = name.lower().replace("-", "_").removesuffix(ALIGNED)
        if plain in WORDS and not edits:
            raise UserError(f"--metrics {name}: needs words, masks and garments; --edits names their file")
        if name not in known and (plain in NEEDS or plain == "lpips"):
            raise UserError(f"--metrics {name}: its network's weights aren't here (--networks), so no number is given")
        if name not in known:
            raise UserError(f"--metrics {name}: not known of {task}; choose from {', '.join(known)}")
        if name.startswith("ms_ssim") and size < LEAST_SIDE:
            raise UserError(f"--metrics {name}: needs --size {LEAST_SIDE} or more, for its five scales; got {size}")
        if name in LOGO and not boxes:
            raise UserError(f"--metrics {name}: needs the logos' boxes; --boxes names their file")
    if asked:
        return tuple(name for name in known if name in asked)
    return tuple(
        name for name in known if (size >= LEAST_SIDE or not name.startswith("ms_ssim")) and (boxes or name not in LOGO)
    )


def needs_masks(metrics: Sequence[str]) -> bool:
    """Whether any of them looks at silhouettes, so that the true pictures must show one."""
    starts = ("silhouette", "ciede", "colour", "logo")
    return any(name.endswith(ALIGNED) or name.startswith(starts) for name in metrics)


class PairScores:
    """Scores batches of pairs on the devices; silhouettes, boxes and logos are found on the host."""

    def __init__(
        self,
        metrics: tuple[str, ...],
        mesh: Mesh | None = None,
        batch: int = 16,
        networks: Networks | None = None,
        garments: int = 0,
    ):
        """`garments`: the most that an edit retrieved, for CLIP-I."""
        networks = networks or Networks()
        self.metrics = metrics
        self.aligns = any(name.endswith(ALIGNED) or name in LOGO for name in metrics)
        self.masks = needs_masks(metrics)
        params = {"random": random_network()} | {given.net: given.params for given in networks.lpips}
        for name in ("dists", "inception", "vision"):
            if getattr(networks, name) is not None:
                params[name] = getattr(networks, name).params
        self._vision = networks.vision and networks.vision.config
        named = PROTOCOLS | _learned_protocols(networks)
        self.protocols = {name: named[name] for name in metrics}
        self.clip = None
        if set(WORDS) & set(metrics):
            self.clip = ClipScores(metrics, networks.vision, networks.text, mesh, batch, garments)
        self._run = Batched(self._program, params, mesh, batch)
        self.batch = self._run.batch

    def __call__(
        self, real: Pictures, fake: Pictures, boxes: Sequence[Box | None], masks: Sequence[Masks] | None = None
    ) -> dict[str, Float[np.ndarray, "b ..."]]:
        """Each metric's values [b] but for KID and FID, which follow from `features_KIND_real` and `_fake` [b, d].

        `boxes`: of each pair's logo in the true picture; the logo's numbers are NaN where there is none. `masks`: the
        true and the generated silhouettes; None: as they stand out, in pictures that weren't padded.
        """
        if masks is None:
            masks = [np.stack([flat_mask(picture) for picture in pictures]) for pictures in (real, fake) if self.masks]
        moved = fake
        if self.aligns:
            moved = np.stack([align(*rows)[0] for rows in zip(fake, masks[1], masks[0], strict=True)])
        found = dict(self._run(real, fake, *([moved] if self.aligns else []), *masks))
        if set(LOGO) & set(self.metrics):
            found |= self._logos(real, moved, boxes)
        return {name: np.asarray(values) for name, values in found.items()}

    def _program(
        self, params: Any, real: UInt8[Array, "b s s 3"], fake: UInt8[Array, "b s s 3"], *rest: Array
    ) -> dict[str, Float[Array, "b ..."]]:
        """`rest`: the aligned pictures if any metric wants them, then both silhouettes if any does."""
        moved = rest[0] if self.aligns else fake
        measures: Mapping[str, Callable] = {"ssim": ssim, "ms_ssim": ms_ssim}
        truth, found = real / jnp.float32(255), {}
        for name in self.metrics:
            other = (moved if name.endswith(ALIGNED) else fake) / jnp.float32(255)
            measure = measures.get(name.removesuffix(ALIGNED))
            if measure is not None:
                found[name] = measure(truth, other)
            elif name.startswith("lpips"):
                net = name.split("_")[1]
                found[name] = lpips(net, params[net], 2 * truth - 1, 2 * other - 1)
            elif name.startswith("dists"):
                found[name] = dists(params["dists"], truth, other)
        if self.masks:
            found |= self._of_masks(real, fake, moved, *rest[-2:])
        extractors = {"random": random_features, "inception": self._inception, "vision": self._clip}
        for kind in dict.fromkeys(FEATURES[name] for name in self.metrics if name in FEATURES):
            found[f"features_{kind}_real"] = extractors[kind](params[kind], real)
            found[f"features_{kind}_fake"] = extractors[kind](params[kind], fake)
        return found

    def _inception(self, params: Any, pictures: UInt8[Array, "b s s 3"]) -> Float[Array, "b d"]:
        return inception(params, (clean_resize(pictures, INCEPTION_SIDE) - 128) / 128)

    def _clip(self, params: Any, pictures: UInt8[Array, "b s s 3"]) -> Float[Array, "b d"]:
        side = self._vision.image_size
        pixels = preprocess(clean_resize(pictures, side) / 127.5 - 1, side)
        return CLIPVisionModel(self._vision).apply({"params": params}, pixels).image_embeds

    def _of_masks(
        self,
        real: UInt8[Array, "b s s 3"],
        fake: UInt8[Array, "b s s 3"],
        moved: UInt8[Array, "b s s 3"],
        mask: Bool[Array, "b s s"],
        other: Bool[Array, "b s s"],
    ) -> dict[str, Float[Array, " b"]]:
        found = {}
        if "silhouette_iou" in self.metrics:
            both, either = ((x).sum(axis=(1, 2)) for x in (mask & other, mask | other))
            found["silhouette_iou"] = both / jnp.maximum(either, 1)
        for name, picture in (("ciede2000", fake), ("ciede2000" + ALIGNED, moved)):
            if name in self.metrics:
                found[name] = mean_ciede2000(real, picture, mask)
        if "colour_bias" in self.metrics:
            # A picture without any garment has no colour of one: its whole paper is taken.
            found["colour_bias"] = ciede2000(mean_lab(real, mask), mean_lab(fake, other))
        return found

    def _logos(
        self, real: Pictures, moved: Pictures, boxes: Sequence[Box | None]
    ) -> dict[str, Float[np.ndarray, " b"]]:
        measures = {"logo_psnr": psnr, "logo_edges": edge_correlation}
        return {
            name: np.array(
                [measure(a, b, box) if box else np.nan for a, b, box in zip(real, moved, boxes, strict=True)]
            )
            for name, measure in measures.items()
            if name in self.metrics
        }


def without_features(
    columns: dict[str, np.ndarray], metrics: Sequence[str], twins: Sequence[str] | None = None
) -> tuple[dict[str, Float[np.ndarray, " n"]], dict[str, tuple[float, Float[np.ndarray, " g"]]]]:
    """(columns with KID's pseudo-values, {metric of SETS: its value, and without each group}) from features.

    `twins` as in `fid_without_groups`.
    KID and FID are left out where there are fewer pairs than FEWEST.
    """
    found = {name: values for name, values in columns.items() if not name.startswith("features_")}
    sets = {}
    for name in metrics:
        kind = FEATURES.get(name)
        if kind is None or len(columns[f"features_{kind}_real"]) < FEWEST[name]:
            continue
        features = columns[f"features_{kind}_real"], columns[f"features_{kind}_fake"]
        if name in SETS:
            sets[name] = fid(*features), fid_without_groups(*features, twins=twins)
        else:
            found[name] = kid_of_pairs(*features)
    return found, sets


def _learned_protocols(networks: Networks) -> dict[str, str]:
    """Of each metric that a network measures: the way and the weights."""
    found = {}
    for given in networks.lpips:
        found[f"lpips_{given.net}"] = f"lpips-{given.net}/0.1/weights-{given.sha256[:12]}"
    if networks.dists is not None:
        found["dists"] = f"dists/own-size/1/weights-{networks.dists.sha256[:12]}"
    found |= {name + ALIGNED: f"{protocol}+{alignment.PROTOCOL}" for name, protocol in found.items()}
    if networks.inception is not None:
        how = f"clean-299/inception-2015/1/weights-{networks.inception.sha256[:12]}"
        found |= {"fid": f"fid/{how}", "kid": f"kid/pairs/{how}"}
    if networks.vision is not None:
        how = f"weights-{networks.vision.sha256[:12]}"
        found["clip_fid"] = f"clip-fid/float-{networks.vision.config.image_size}/1/{how}"
        found["clip_i"] = f"clip-i/{EDITS}+patch-64/{how}"
        if networks.text is not None:
            found["clip_t"] = f"clip-t/{EDITS}/{how}-{networks.text.sha256[:12]}"
    return found
