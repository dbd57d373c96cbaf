"""Person records as arrays of one size; `pipeline.make_batches` makes batches of them.

A batch (B rows of this process): `person`, `garment` uint8 [B,h,w,3]; `mask` uint8 [B,h,w], 1 where to draw anew;
`keypoints` float32 [B,18,3], (x, y, confidence) in pixels of the resized person, for `pose.pose_maps` on the device;
`text_ids` int32 [B,L]; `category` int32 [B], the place in CATEGORIES; `row` int32 [B].
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ragdiff_jax.data.images import decode_image, decode_indices, decode_mask, image_size, resize
from ragdiff_jax.data.inpainting_masks import CATEGORIES, inpainting_mask, mask_rule
from ragdiff_jax.data.label_maps import CLASSES, convert_labels
from ragdiff_jax.data.person_records import PersonRecord, PersonSource
from ragdiff_jax.errors import UserError

Batch = dict[str, np.ndarray]


def caption_of(record: PersonRecord) -> str:
    """The record's caption: the prompt that needs nothing else."""
    return record.caption


class PersonArrays:
    """The records of a source as arrays of `shape` (height, width); with `cache`, each is decoded once and kept.

    Pictures keep their proportions: scaled to fit, centred, a person's border repeated and a garment's space white.
    Dress Code and VITON-HD are 4:3 and fill 512x384 exactly, as in the released code. A record's own mask is taken
    before one from its label map by `inpainting_mask` (`mask_mode`, `rules`, `compatible` are its arguments).
    `tokenizer` needs `encode(list[str]) -> int32 [n,L]`; it is given `prompt(record)`. Safe to read from threads.
    """

    def __init__(
        self,
        source: PersonSource,
        *,
        shape: tuple[int, int],
        tokenizer,
        mask_mode: str = "mask",
        rules: str = "dresscode",
        compatible: bool = False,
        prompt: Callable[[PersonRecord], str] = caption_of,
        cache: bool = False,
    ):
        if not len(source):
            raise UserError("the data set has nobody in this split; add people or name another split")
        self.source, self.shape, self.tokenizer, self.prompt = source, tuple(shape), tokenizer, prompt
        self._mask_options = {"mode": mask_mode, "rules": rules, "compatible": compatible}
        self._cache: list[Batch | None] | None = [None] * len(source) if cache else None

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, row: int) -> Batch:
        """One record's fields, without the batch axis. Raises `UserError` that names the record: a picture that can't
        be read, a mask or label map that is not the person's shape, neither of both, a mask of nothing.
        """
        if self._cache is not None and self._cache[row] is not None:
            return self._cache[row]
        record = self.source[row]
        person = decode_image(record.person, f"person of record {record.id}")
        keypoints = _moved(record, image_size(record.person), self.shape)
        item = {
            "person": fit(person, self.shape, "edge"),
            "garment": fit(decode_image(record.garment, f"garment of record {record.id}"), self.shape, "white"),
            "mask": self._mask(record, person.shape[:2], keypoints).astype(np.uint8),
            "keypoints": keypoints,
            "text_ids": self.tokenizer.encode([self.prompt(record)])[0],
            "category": np.int32(CATEGORIES.index(record.category)),
            "row": np.int32(row),
        }
        if self._cache is not None:
            self._cache[row] = item
        return item

    def can_be_edited(self, row: int) -> bool:
        """Whether there is anything to draw anew: a garment may be hidden altogether. Reads the label map alone."""
        record = self.source[row]
        if record.mask is not None or record.label_map is None:
            return True  # a mask that marks nothing is a mistake, and told when it is read
        labels = convert_labels(decode_indices(record.label_map, record.id), "dresscode", record.id)
        labels = fit_grey(labels, self.shape, Image.Resampling.NEAREST)
        region = mask_rule(record.category, self._mask_options["rules"]).region
        if np.isin(labels, [CLASSES[name] for name in region]).any():
            return True
        size = image_size(record.person, f"person of record {record.id}")
        try:
            return bool(self._mask(record, size, _moved(record, size, self.shape)).any())
        except UserError:
            return False

    def batch(self, rows: np.ndarray) -> Batch:
        """The batch of these rows."""
        items = [self[int(row)] for row in rows]
        return {name: np.stack([item[name] for item in items]) for name in items[0]}

    def _mask(self, record, person, keypoints):
        if record.mask is not None:
            mask = decode_mask(record.mask, f"mask of record {record.id}")
            _check_shape(mask, person, f"record {record.id}: the mask")
            mask = fit_grey(mask.astype(np.uint8) * 255, self.shape, Image.Resampling.BILINEAR) > 127
            if not mask.any():
                raise UserError(f"record {record.id}: the mask marks nothing; make the part to change white")
            return mask
        if record.label_map is None:
            raise UserError(f"record {record.id}: has neither a mask nor a label map; give one of both")
        name = f"label map of record {record.id}"
        labels = convert_labels(decode_indices(record.label_map, name), "dresscode", name)
        _check_shape(labels, person, f"record {record.id}: the label map")
        labels = fit_grey(labels, self.shape, Image.Resampling.NEAREST)
        try:
            return inpainting_mask(
                labels, record.category, keypoints if keypoints.any() else None, **self._mask_options
            )
        except UserError as error:
            raise UserError(f"record {record.id}: {error}") from None


def fit(image: UInt8[np.ndarray, "h w 3"], shape: tuple[int, int], fill: str = "edge") -> UInt8[np.ndarray, "h2 w2 3"]:
    """The whole picture, undistorted and centred, in `shape` (height, width); new pixels repeat the border's ("edge")
    or are white.
    """
    (height, width), widths = place_in(image.shape[:2], shape)
    image = resize(image, (height, width))
    if fill == "edge":
        return np.pad(image, (*widths, (0, 0)), mode="edge")
    return np.pad(image, (*widths, (0, 0)), constant_values=255)


def place_in(
    size: tuple[int, int], shape: tuple[int, int]
) -> tuple[tuple[int, int], tuple[tuple[int, int], tuple[int, int]]]:
    """The size that fits into `shape`, and the padding before and after on both axes."""
    scale = min(shape[0] / size[0], shape[1] / size[1])
    inner = [min(side, max(1, round(old * scale))) for old, side in zip(size, shape, strict=True)]
    spare = [side - new for new, side in zip(inner, shape, strict=True)]
    return tuple(inner), tuple((space // 2, space - space // 2) for space in spare)


def fit_grey(values: UInt8[np.ndarray, "h w"], shape: tuple[int, int], filter) -> UInt8[np.ndarray, "h2 w2"]:
    """`fit` for one value a pixel; new pixels are 0."""
    (height, width), widths = place_in(values.shape, shape)
    return np.pad(np.array(Image.fromarray(values).resize((width, height), filter)), widths)


def _moved(record, size, shape):
    """The keypoints in pixels of the fitted picture."""
    keypoints = np.array(record.keypoints, np.float32)
    (height, width), ((top, _), (left, _)) = place_in(size, shape)
    keypoints[:, :2] = keypoints[:, :2] * (width / size[1], height / size[0]) + (left, top)
    return np.where(keypoints[:, 2:] > 0, keypoints, 0).astype(np.float32)


def _check_shape(values, person, name):
    if abs(values.shape[0] * person[1] - values.shape[1] * person[0]) > max(*values.shape, *person):
        raise UserError(
            f"{name} is {values.shape[1]}x{values.shape[0]}, the person {person[1]}x{person[0]}; "
            "they must have one shape"
        )
