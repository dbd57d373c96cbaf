"""`SynthGarments`: the drawn garments as a TFDS data set in ArrayRecord files, without TensorFlow.

Garments come in structure twins: rows 2i and 2i+1 of a split have one structure and two textures, so every
record's structure partner is in the same split.
Importing this module imports TFDS; import it where it is used.
"""

import contextlib
import dataclasses
import functools
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

import tensorflow_datasets as tfds
from absl import logging

from ragdiff_jax.data.in_order import InOrderBuilder
from ragdiff_jax.data.processes import drawn_splits
from ragdiff_jax.data.records import TfdsPairs, pair_features, to_example
from ragdiff_jax.data.synth.styles import get_style
from ragdiff_jax.data.synth_records import EXTREME, draw_chunk, mix_seed, synth_record
from ragdiff_jax.errors import UserError

__all__ = ["SynthConfig", "SynthGarments", "mix_seed", "open_synth", "prepare_synth", "synth_record"]

DEFAULT_SPLITS = {"train": 0.9, "validation": 0.05, "test": 0.05}


@dataclasses.dataclass
class SynthConfig(tfds.core.BuilderConfig):
    """What decides the pixels: number of garments, side in pixels, seed, style, and the splits' row ranges."""

    count: int = 4096
    size: int = 128
    seed: int = 0
    style: str = "drawn"
    splits: tuple[tuple[str, int, int], ...] = ()
    processes: int = 1


class SynthGarments(InOrderBuilder):
    """Pairs of `PairRecord` fields; see `ragdiff_jax.data.records.pair_features`."""

    VERSION = tfds.core.Version("2.4.0")
    RELEASE_NOTES = {
        "2.4.0": "Extreme garments aren't the ordinary ones, exaggerated; bottoms without a top's attributes; tops "
        "that aren't tucked in hang over a sitter's lap; photos that hide their garment are drawn anew.",
        "2.3.0": "Sleeves lie in the flat-lay by what can be seen of the garment, not by chance.",
        "2.2.0": "Where the garment is in the photo (photo_mask).",
        "2.1.0": "Drawn faster, with other noise and folds; more kinds of waistcoats, tanks, vests and shorts.",
        "2.0.0": "All clothes of Table 6 with trousers and shorts, laid by hand; two styles; extreme garments.",
        "1.0.0": "Tops, bottoms and dresses in structure twins.",
    }

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Parametric garments: in-the-wild views, standard flat-lays, masks, attributes.",
            features=pair_features(),
            disable_shuffling=True,  # rows are the garments' numbers; Grain shuffles
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        config = self.builder_config
        draw = functools.partial(draw_chunk, seed=config.seed, size=config.size, style=config.style)
        return drawn_splits(draw, to_example, config.splits, config.processes, "garments")


def prepare_synth(
    data_dir: str | Path,
    *,
    count: int = 4096,
    size: int = 128,
    seed: int = 0,
    splits: Mapping[str, float] | None = None,
    extreme: int = 0,
    style: str = "drawn",
    processes: int = 1,
) -> Path:
    """Draws `count` garments into `data_dir` (once: a finished set is found again) and returns the data set's
    folder.

    `splits` maps names to shares of `count`; every split holds whole twin pairs. `extreme` more garments of unusual
    shapes and patterns make a split of that name; `style` is how all of them are rendered. TFDS writes into a folder
    marked incomplete and renames it at the end, so an interrupted run leaves no half data set. Shows a
    progress bar.
    Raises `UserError` for numbers that can't be drawn and for a `data_dir` that can't be written.
    """
    ranges = split_ranges(count, splits or DEFAULT_SPLITS)
    if size < 16:
        raise UserError(f"size {size} is too small for a garment; use at least 16")
    get_style(style)
    if extreme < 0 or extreme % 2:
        raise UserError(f"extreme {extreme} must be an even number of garments (structure twins), 0 for none")
    if extreme:
        if EXTREME in (splits or ()):
            raise UserError(f"splits {dict(splits or {})} already has one named {EXTREME!r}; leave out `extreme`")
        ranges += ((EXTREME, 0, extreme),)
    layout = "_".join(f"{name}{stop - start}" for name, start, stop in ranges)
    config = SynthConfig(
        name=f"{size}px_seed{seed}_{layout}" + (f"_{style}" if style != "drawn" else ""),
        count=count,
        size=size,
        seed=seed,
        style=style,
        splits=ranges,
        processes=processes,
    )
    try:
        with quiet_tfds():
            builder = SynthGarments(data_dir=str(data_dir), config=config, file_format="array_record")
            builder.download_and_prepare()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{data_dir}: the data set can't be written ({reason}); choose another folder") from error
    return Path(builder.data_dir)


def open_synth(data_dir: str | Path, split: str, **numbers) -> TfdsPairs:
    """`prepare_synth` and the records of one split."""
    return TfdsPairs(prepare_synth(data_dir, **numbers), split)


@contextlib.contextmanager
def quiet_tfds():
    """TFDS speaks of downloads on stdout and warns of our custom config; our bar says what the user needs."""
    level = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()
        logging.set_verbosity(level)


def split_ranges(count: int, splits: Mapping[str, float]) -> tuple[tuple[str, int, int], ...]:
    """(name, first, stop) of each split's garments, whole twins. Raises `UserError` for shares that can't be."""
    if count % 2:
        raise UserError(f"count {count}: twins come by twos; use an even number")
    if count < 2 * len(splits):
        raise UserError(f"count {count} is too small for {len(splits)} splits of twins; use at least {2 * len(splits)}")
    if any(share <= 0 for share in splits.values()) or abs(sum(splits.values()) - 1) > 1e-6:
        raise UserError(f"splits {dict(splits)} must be positive shares that sum to 1")
    ranges, at, pairs = [], 0, count // 2
    names = list(splits)
    for place, name in enumerate(names):
        left = len(names) - place - 1
        size = pairs - at if not left else min(max(1, round(splits[name] * pairs)), pairs - at - left)
        ranges.append((name, 2 * at, 2 * (at + size)))
        at += size
    return tuple(ranges)
