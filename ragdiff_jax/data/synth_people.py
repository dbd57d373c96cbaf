"""`SynthPeople`: the garments of `SynthGarments`, each worn by a drawn person, as person records.

Label maps, keypoints and garments are exact. Everything follows from integers and is the same on every machine.
Importing this module imports TFDS; import it where it is used.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

import tensorflow_datasets as tfds

from ragdiff_jax.data.garment_categories import category_of_garment
from ragdiff_jax.data.images import encode_jpeg
from ragdiff_jax.data.in_order import InOrderBuilder
from ragdiff_jax.data.person_records import PersonRecord, person_features, person_from_fields, person_to_example
from ragdiff_jax.data.png import fast_png
from ragdiff_jax.data.processes import drawn_splits
from ragdiff_jax.data.synth import caption, garment_id
from ragdiff_jax.data.synth.flat import flat_from_sheets, make_sheets
from ragdiff_jax.data.synth.shape import GarmentSpec
from ragdiff_jax.data.synth.wild import render_scene
from ragdiff_jax.data.synth_dataset import DEFAULT_SPLITS, quiet_tfds, split_ranges
from ragdiff_jax.data.synth_records import drawn_garment
from ragdiff_jax.errors import UserError


@dataclasses.dataclass
class SynthPeopleConfig(tfds.core.BuilderConfig):
    """What decides the pixels: side in pixels, seed, and the splits' row ranges."""

    size: int = 128
    seed: int = 0
    splits: tuple[tuple[str, int, int], ...] = ()
    processes: int = 1


class SynthPeople(InOrderBuilder):
    """Records of `person_records.person_features`."""

    VERSION = tfds.core.Version("1.2.0")
    RELEASE_NOTES = {
        "1.2.0": "The garments and photos of SynthGarments 2.4.",
        "1.1.0": "The garments of SynthGarments 2.1.",
        "1.0.0": "The garments of SynthGarments 2 on drawn people.",
    }

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Drawn people in parametric garments: label maps, keypoints, garments, captions.",
            features=person_features(),
            disable_shuffling=True,  # rows are the garments' numbers; Grain shuffles
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        config = self.builder_config
        draw = functools.partial(_draw_chunk, seed=config.seed, size=config.size)
        return drawn_splits(draw, person_to_example, config.splits, config.processes, "people")


def synth_person(index: int, *, seed: int = 0, size: int = 128, split: str = "train") -> PersonRecord:
    """The person who wears garment `index` of the endless series `seed` (`synth_dataset.synth_record` has the same
    garment); `garment_id` is that garment's id. The chunks are the first three parts of its sentence.
    """
    spec, own = drawn_garment(index, seed)
    sheets = make_sheets(spec, size)
    scene = render_scene(spec, own, size, sheets, view="worn")
    chunks = caption(spec).removeprefix("a photo of ").split(", ")[:3]
    return person_from_fields(
        {
            "id": garment_id(index, seed),
            "person": encode_jpeg(scene.photo),
            "garment": fast_png(flat_from_sheets(sheets, size)[0]),
            "category": synth_category(spec),
            "keypoints": scene.keypoints,
            "label_map": fast_png(scene.label_map),
            "caption": ", ".join(chunks),
            "chunks": chunks,
            "split": split,
        }
    )


def synth_category(spec: GarmentSpec) -> str:
    """Dress Code's category of a drawn garment: upper_body, lower_body or dresses."""
    return category_of_garment(spec.category)


def prepare_synth_people(
    data_dir: str | Path,
    *,
    count: int = 4096,
    size: int = 128,
    seed: int = 0,
    splits: Mapping[str, float] | None = None,
    processes: int = 1,
) -> Path:
    """Draws `count` people into `data_dir` (once: a finished set is found again); returns the data set's folder.

    Arguments, atomicity and errors as of `synth_dataset.prepare_synth`.
    """
    ranges = split_ranges(count, splits or DEFAULT_SPLITS)
    if size < 16:
        raise UserError(f"size {size} is too small for a person; use at least 16")
    layout = "_".join(f"{name}{stop - start}" for name, start, stop in ranges)
    config = SynthPeopleConfig(
        name=f"{size}px_seed{seed}_{layout}", size=size, seed=seed, splits=ranges, processes=processes
    )
    try:
        with quiet_tfds():
            builder = SynthPeople(data_dir=str(data_dir), config=config, file_format="array_record")
            builder.download_and_prepare()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{data_dir}: the data set can't be written ({reason}); choose another folder") from error
    return Path(builder.data_dir)


def _draw_chunk(chunk: tuple[str, int, int], **numbers) -> list[PersonRecord]:
    split, start, stop = chunk
    return [synth_person(index, split=split, **numbers) for index in range(start, stop)]
