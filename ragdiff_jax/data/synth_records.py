"""The records of `SynthGarments`. Without TFDS, which drawing processes needn't import."""

from ragdiff_jax.data.images import encode_jpeg
from ragdiff_jax.data.png import fast_png
from ragdiff_jax.data.records import PairRecord
from ragdiff_jax.data.synth import garment_id, spec_attributes, structure_partner, synth_spec
from ragdiff_jax.data.synth.captions import caption
from ragdiff_jax.data.synth.flat import flat_from_sheets, make_sheets
from ragdiff_jax.data.synth.garment import GarmentSpec
from ragdiff_jax.data.synth.wild import render_scene

EXTREME = "extreme"  # the split of shapes and patterns that no other split has


def synth_record(
    index: int,
    *,
    seed: int = 0,
    size: int = 128,
    split: str = "train",
    style: str = "drawn",
) -> PairRecord:
    """Garment `index` of the endless series `seed`; `index ^ 1` is its structure twin.

    The split "extreme" is a series of its own: shapes and patterns that no other split has (R Fig. 9).
    Raises `UserError` for an unknown style.
    """
    extreme = split == EXTREME
    spec, own = drawn_garment(index, seed, extreme=extreme)
    sheets = make_sheets(spec, size, style=style)
    flat, mask = flat_from_sheets(sheets, size)
    scene = render_scene(spec, own, size, sheets)
    return PairRecord(
        id=garment_id(index, seed, style=style, extreme=extreme),
        photo=encode_jpeg(scene.photo),
        flat=fast_png(flat),
        mask=fast_png(mask),
        photo_mask=fast_png(scene.garment_mask),
        photo_attributes=scene.attributes,
        flat_attributes=spec_attributes(spec),
        caption=caption(spec, scene.attributes),
        category=spec.category,
        structure_partner=garment_id(index ^ 1, seed, style=style, extreme=extreme),
        split=split,
    )


def drawn_garment(index: int, seed: int, *, extreme: bool = False) -> tuple[GarmentSpec, int]:
    """(garment `index` of the series `seed`, the seed of its photo); an odd one is the twin of the one before."""
    spec = synth_spec(index - index % 2, seed, extreme=extreme)
    own = mix_seed(seed, index, 1) if extreme else mix_seed(seed, index)
    return (structure_partner(spec, own) if index % 2 else spec), own


def draw_chunk(chunk: tuple[str, int, int], **numbers) -> list[PairRecord]:
    split, start, stop = chunk
    return [synth_record(index, split=split, **numbers) for index in range(start, stop)]


def mix_seed(*numbers: int) -> int:
    """One 31-bit seed from several numbers, the same on every machine."""
    state = 0x9E3779B9
    for number in numbers:
        state = (state ^ (number + 0x7F4A7C15)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 29
    return state & 0x7FFFFFFF
