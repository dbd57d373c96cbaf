"""The numbers of one pair (true picture, generated picture), each with its protocol id."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, UInt8

from ragdiff_jax.data.images import flat_mask
from ragdiff_jax.errors import UserError
from ragdiff_jax.evaluation import alignment
from ragdiff_jax.evaluation.alignment import Box, align
from ragdiff_jax.evaluation.batches import Batched
from ragdiff_jax.evaluation.colour import ciede2000, lab
from ragdiff_jax.evaluation.kid import kid_of_pairs
from ragdiff_jax.evaluation.logo import edge_correlation, psnr
from ragdiff_jax.evaluation.lpips_weights import LpipsWeights
from ragdiff_jax.evaluation.ms_ssim import LEAST_SIDE, ms_ssim
from ragdiff_jax.evaluation.random_features import PROTOCOL as RANDOM
from ragdiff_jax.evaluation.random_features import random_features, random_network
from ragdiff_jax.evaluation.ssim import ssim
from ragdiff_jax.models.lpips import lpips

ALIGNED = "_aligned"
UPWARDS = {"ssim": True, "ms_ssim": True, "silhouette_iou": True, "ciede2000": False, "colour_bias": False}
NETS = ("alex", "vgg")
UPWARDS |= {f"lpips_{net}{end}": False for net in NETS for end in ("", ALIGNED)}
UPWARDS |= {"kid_random": False, "logo_psnr": True, "logo_edges": True} | {
    name + ALIGNED: up for name, up in UPWARDS.items()
}
"""Of each metric whether more is better."""
PROTOCOLS = {
    "ssim": "ssim/gauss11-1.5/1",
    "ms_ssim": "ms-ssim/5-scales-mean2x2/1",
    "silhouette_iou": "silhouette-iou/border-median-10/1",
    "ciede2000": "ciede2000/pixels-in-true-mask/1",
    "colour_bias": "ciede2000/mean-lab-in-own-mask/1",
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
# What needs networks that someone trained; without them there is no number.
LEARNED = ("lpips-alex", "lpips-vgg", "dists", "fid", "kid", "clip-fid", "clip-t", "clip-i")

Pictures = UInt8[np.ndarray, "b s s 3"]


def chosen_metrics(
    task: str, size: int, asked: list[str] | None, boxes: bool, nets: Sequence[str] = ()
) -> tuple[str, ...]:
    """The metrics of a task, or those asked for; `boxes`: logos' are known; `nets`: LPIPS' that are here.

    Raises `UserError` naming what can't be measured and why.
    """
    ends = ("", ALIGNED) if task == "generation" else ("",)
    known = METRICS[task] + tuple(f"lpips_{net}{end}" for net in nets for end in ends)
    for name in asked or ():
        if name not in known and name.lower().replace("_", "-").removesuffix("-aligned") in (*LEARNED, "lpips"):
            raise UserError(f"--metrics {name}: its network's weights aren't here, so no number is given; leave it out")
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


class PairScores:
    """Scores batches of pairs: pictures' similarities and features on the devices, colours and masks on the host."""

    def __init__(
        self,
        metrics: tuple[str, ...],
        mesh: Mesh | None = None,
        batch: int = 16,
        lpips_weights: Sequence[LpipsWeights] = (),
    ):
        self.metrics = metrics
        self.aligns = any(name.endswith(ALIGNED) or name in LOGO for name in metrics)
        self.masks = self.aligns or any(name.startswith(("silhouette", "ciede", "colour", "logo")) for name in metrics)
        params = {"random": random_network()} | {given.net: given.params for given in lpips_weights}
        self.protocols = {name: PROTOCOLS[name] for name in metrics if name in PROTOCOLS}
        for given in lpips_weights:
            protocol = f"lpips-{given.net}/0.1/weights-{given.sha256[:12]}"
            named = {f"lpips_{given.net}": protocol, f"lpips_{given.net}{ALIGNED}": f"{protocol}+{alignment.PROTOCOL}"}
            self.protocols |= {name: protocol for name, protocol in named.items() if name in metrics}
        self._run = Batched(self._program, params, mesh, batch)
        self.batch = self._run.batch

    def __call__(
        self, real: Pictures, fake: Pictures, boxes: Sequence[Box | None]
    ) -> dict[str, Float[np.ndarray, "b ..."]]:
        """Each metric's values [b] but for KID, which follows from `features_real`, `features_fake` [b, 960].

        `boxes`: of each pair's logo in the true picture; the logo's numbers are NaN where there is none.
        """
        masks = [np.stack([flat_mask(picture) for picture in pictures]) for pictures in (real, fake) if self.masks]
        moved = fake
        if self.aligns:
            moved = np.stack([align(*rows)[0] for rows in zip(fake, masks[1], masks[0], strict=True)])
        found = dict(self._run(real, fake, moved) if self.aligns else self._run(real, fake))
        if self.masks:
            found |= self._host(real, fake, moved, masks, boxes)
        return {name: np.asarray(values) for name, values in found.items()}

    def _program(
        self, params: Any, real: UInt8[Array, "b s s 3"], fake: UInt8[Array, "b s s 3"], moved: Any = None
    ) -> dict[str, Float[Array, "b ..."]]:
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
        if "kid_random" in self.metrics:
            found |= {
                "features_real": random_features(params["random"], real),
                "features_fake": random_features(params["random"], fake),
            }
        return found

    def _host(
        self,
        real: Pictures,
        fake: Pictures,
        moved: Pictures,
        masks: list[Bool[np.ndarray, "b s s"]],
        boxes: Sequence[Box | None],
    ) -> dict[str, Float[np.ndarray, " b"]]:
        values: dict[str, list[float]] = {}
        for a, b, c, mask, other, box in zip(real, fake, moved, *masks, boxes, strict=True):
            row = {"silhouette_iou": (mask & other).sum() / max(1, (mask | other).sum())}
            truth = lab(a[mask])
            row["ciede2000"] = ciede2000(truth, lab(b[mask])).mean()
            row["ciede2000" + ALIGNED] = ciede2000(truth, lab(c[mask])).mean()
            # A picture without any garment has no colour of one: its whole paper is taken.
            seen = lab(b[other] if other.any() else b.reshape(-1, 3)).mean(axis=0, keepdims=True)
            row["colour_bias"] = ciede2000(truth.mean(axis=0, keepdims=True), seen).item()
            row["logo_psnr"] = psnr(a, c, box) if box else np.nan
            row["logo_edges"] = edge_correlation(a, c, box) if box else np.nan
            for name in set(row) & set(self.metrics):
                values.setdefault(name, []).append(float(row[name]))
        return {name: np.array(column) for name, column in values.items()}


def with_kid(columns: dict[str, np.ndarray]) -> dict[str, Float[np.ndarray, " n"]]:
    """All pairs' columns with their features replaced by KID's pseudo-values; without KID below three pairs."""
    found = {name: values for name, values in columns.items() if not name.startswith("features_")}
    if "features_real" in columns and len(columns["features_real"]) >= 3:
        found["kid_random"] = kid_of_pairs(columns["features_real"], columns["features_fake"])
    return found
