"""People in, edited people out: `PersonEditor` holds model, parameters and garments and runs batches.

A person's picture of any size is fitted to the model's, edited there, and what the mask marks is put back at the
picture's own size: outside the mask no pixel changes.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

from ragdiff_jax.data.images import resize
from ragdiff_jax.data.inpainting_masks import CATEGORIES, check_mask
from ragdiff_jax.data.person_garments import garment_picture, garment_square
from ragdiff_jax.data.person_pipeline import fit, fit_grey, place_in
from ragdiff_jax.data.pixels import to_float, to_uint8
from ragdiff_jax.data.tokenizer import Tokenizer
from ragdiff_jax.diffusion import Sampler, SamplerName, check_scale, guided, named_sampler, sample
from ragdiff_jax.errors import UserError
from ragdiff_jax.models.transformer import Gates
from ragdiff_jax.pipelines.garment_database import GarmentDatabase
from ragdiff_jax.pipelines.programs import Clock, Programs
from ragdiff_jax.systems.fashion_rag import FashionRAG
from ragdiff_jax.systems.garment_weights import Fusion, Weighting, accepted, fuse_words, garment_weights
from ragdiff_jax.systems.prompts import Prompts
from ragdiff_jax.systems.text_retrieval import embed_garments, embed_texts
from ragdiff_jax.weights.fashion_folder import load_fashion, read_fashion, tokenizer_folder

NO_POSE = "no keypoints were given: the pose maps are zero, and arms may come out in another place"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Person:
    """What is edited and how.

    `mask` is True where to draw anew, of the picture's size; `keypoints` rows (x, y, confidence) in its pixels, or
    None. `garments`: pictures to take in place of retrieved ones, with a name each. `exclude`: ids never retrieved.
    """

    image: UInt8[np.ndarray, "h w 3"]
    mask: Bool[np.ndarray, "h w"]
    category: str
    text: str = ""
    keypoints: Float32[np.ndarray, "18 3"] | None = None
    garments: tuple[tuple[str, UInt8[np.ndarray, "_ _ 3"]], ...] = ()
    exclude: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class UsedGarment:
    """A garment of an edit: id of the database or the file's name, its cosine with the text (None without text), its
    weight (0: rejected), its picture.
    """

    name: str
    retrieved: bool
    similarity: float | None
    weight: float
    picture: UInt8[np.ndarray, "h w 3"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Edited:
    """The edited picture, of the person's own size, and what it was made from.

    `detail`: name of the garment whose keys and values the U-Net saw, None if it saw none.
    `database_split`: of the retrieved garments, None if none were; `target_excluded`: whether ids were left out.
    `seconds`: retrieve, denoise, decode, total; the share of its batch.
    """

    image: UInt8[np.ndarray, "h w 3"]
    garments: tuple[UsedGarment, ...]
    mask: Bool[np.ndarray, "h w"]
    prompt: str
    detail: str | None
    database_split: str | None
    target_excluded: bool
    warnings: tuple[str, ...]
    seconds: Mapping[str, float]


class PersonEditor:
    """Edits people with one model and one database. A result depends on the person and the seed alone.

    `fusion` and `weighting`: see `systems/garment_weights.py`; an image prompt is always pooled. `reject`: garments
    whose cosine with the text is more than this below the best one's are left out, None keeps all; `reject_below`:
    those whose cosine is less than this. `detail`: whether the U-Net sees the keys and values of the garment that
    counts most; None: if the model has a ReferenceNet. `window`: in the place of the
    model's own (`FashionRAG.window`); 0: the whole picture is seen. `mesh`: where `params` lie, if on several devices;
    a batch is cut over it, and `batch_size` rounded up to be divided.
    """

    def __init__(
        self,
        model: FashionRAG,
        params: Mapping[str, Any],
        tokenizer: Tokenizer,
        database: GarmentDatabase | None = None,
        *,
        batch_size: int = 4,
        fusion: Fusion = "concat",
        weighting: Weighting = "equal",
        reject: float | None = None,
        reject_below: float | None = None,
        detail: bool | None = None,
        window: float | None = None,
        mesh: Mesh | None = None,
    ):
        if detail and not model.reference_net:
            raise UserError(
                "this model has no reference_net, which shows a garment's detail; leave --detail out, or train one "
                "(configs/fashion_rag/tiny.py:detail)"
            )
        self.model, self.params, self.tokenizer, self.database = model, params, tokenizer, database
        self._programs = Programs(mesh)
        self.batch_size = self._programs.whole_batches(batch_size)
        self.window = model.window if window is None else window
        self.fusion, self.weighting, self.reject, self.reject_below = fusion, weighting, reject, reject_below
        self.detail = detail
        self.prompts = Prompts(kind=model.prompt, tokenizer=tokenizer, tokens=model.tokens)

    @classmethod
    def from_folders(
        cls,
        model_folder: str | Path,
        database: str | Path | None,
        *,
        on_build: Callable[[int], Any] = lambda count: None,
        **options,
    ) -> "PersonEditor":
        """Loads a model folder and a memory; `options` are the constructor's. Raises `UserError`."""
        model = read_fashion(model_folder)
        params = load_fashion(model, model_folder, mesh=options.get("mesh"), dtype=model.dtype)
        tokenizer = Tokenizer.from_folder(tokenizer_folder(model_folder))
        garments = None
        if database is not None:
            garments = GarmentDatabase.open(database, model, params, on_build=on_build)
        return cls(model, params, tokenizer, garments, **options)

    def check(self, person: Person, retrieve: int) -> None:
        """Raises `UserError` for a person that can't be edited, before any work."""
        if person.category not in CATEGORIES:
            raise UserError(f"category {person.category!r} is unknown; use one of {', '.join(CATEGORIES)}")
        check_mask(person.mask, person.image.shape[:2], "mask")
        count = len(person.garments) or retrieve
        if not person.text and not count:
            raise UserError("nothing says what to draw; give --text, or garments with --garment")
        if not person.text and not person.garments:
            raise UserError("there is no text to retrieve garments by; give --text, or garments with --garment")
        if self.detail and not count:
            raise UserError("there is no garment whose detail could be shown; retrieve one, or leave --detail out")
        room = min(count, 1) if self.fusion == "pool" else count
        self.prompts.encode([person.text], [person.category], room)
        if not person.garments and retrieve and self.database is None:
            raise UserError("there is no database to retrieve from; name one with --memory, or give --garment")

    def edit(
        self,
        people: Sequence[Person],
        *,
        retrieve: int | None = None,
        steps: int = 30,
        guidance: float | None = None,
        seed: int = 0,
        sampler: SamplerName | None = None,
    ) -> list[Edited]:
        """Each person edited. `retrieve`: garments to retrieve for those without any of their own (None: the model's
        number). Raises `UserError` as `check` does, and for bad steps.
        """
        retrieve = self.model.retrieved if retrieve is None else retrieve
        for person in people:
            self.check(person, retrieve)
        table = named_sampler(sampler or self.model.sampler, self.model.schedule, steps)
        scale = float(self.model.guidance_scale if guidance is None else guidance)
        check_scale(scale)
        results: list[Edited | None] = [None] * len(people)
        # People with as many garments make a batch of one shape.
        counts = [len(person.garments) or retrieve for person in people]
        for count in sorted(set(counts)):
            places = [place for place, own in enumerate(counts) if own == count]
            for start in range(0, len(places), self.batch_size):
                part = places[start : start + self.batch_size]
                edited = self._edit([people[place] for place in part], count, table, scale, seed)
                for place, result in zip(part, edited, strict=True):
                    results[place] = result
        return results

    def _edit(self, people, count: int, table: Sampler, scale: float, seed: int) -> list[Edited]:
        started, clock = time.perf_counter(), Clock(self._programs)
        model, size = self.model, 1 if len(people) == 1 else self.batch_size
        gathered = [self._garments(person, count) for person in people]
        rows = [*range(len(people)), *[0] * (size - len(people))]
        batch = [self._fitted(people[row]) for row in rows]
        arrays = {name: np.stack([one[name] for one in batch]) for name in batch[0]}
        room = min(count, 1) if self.fusion == "pool" else count
        ids = np.concatenate(
            [self.prompts.encode([people[row].text], [people[row].category], room) for row in rows]
        )
        # Of the text alone, which the prompt with garments need not hold whole, nor at all (`check`).
        plain = np.concatenate(
            [self.prompts.encode([people[row].text], [people[row].category], 0, cut=bool(count)) for row in rows]
        )
        inputs = {"ids": ids, "plain": plain, "empty": self.tokenizer.encode([""]), **arrays}
        if count:
            side = model.image_encoder.image_size
            squares = [
                np.stack([garment_square(garment.picture, side, model.garment_fit) for garment in gathered[row][0]])
                for row in rows
            ]
            inputs["garments"] = np.stack(squares)
            inputs["weights"] = np.array([[g.weight for g in gathered[row][0]] for row in rows], np.float32)
            if self._shows_detail:
                tops = [_top(gathered[row][0]).picture for row in rows]
                inputs["top"] = np.stack([garment_picture(picture, model.image_size) for picture in tops])
        clock.lap("retrieve")
        noise = jax.random.normal(jax.random.key(seed), (1, *model.latent_size, model.vae.latent_channels))
        inputs["noise"] = jnp.repeat(noise, size, axis=0)
        inputs["seeds"] = np.full(size, seed % 2**32, np.uint32)
        denoise = partial(_denoise, model, self.fusion, self.prompts.placeholder, scale == 1)
        name = f"{self.fusion} {'plain' if scale == 1 else 'guided'} {'with noise' if table.stochastic else ''}"
        run = self._programs.run
        latents = run(name, denoise, self.params, inputs, table, np.float32(scale), rows=size)
        latents.block_until_ready()
        clock.lap("denoise")
        images = np.asarray(run("decode", partial(_decode, model), self.params, latents, rows=size))
        clock.lap("decode")
        seconds = {**clock.seconds, "total": time.perf_counter() - started}
        seconds = {name: value / len(people) for name, value in seconds.items()}
        return [
            self._result(person, image, garments, split, seconds)
            for person, image, (garments, split) in zip(people, images, gathered, strict=False)
        ]

    @property
    def _shows_detail(self) -> bool:
        return self.model.reference_net and self.detail is not False

    def _garments(self, person: Person, count: int) -> tuple[list[UsedGarment], str | None]:
        """The garments of an edit with similarity and weight, and the split of the database that they are of."""
        if not count:
            return [], None
        query = embed_texts(self.model, self.params, self.tokenizer, [person.text])[0] if person.text else None
        if person.garments:
            names, pictures = zip(*person.garments, strict=True)
            squares = [
                garment_square(picture, self.model.image_encoder.image_size, self.model.garment_fit)
                for picture in pictures
            ]
            vectors, split = embed_garments(self.model, self.params, squares), None
        else:
            found = self.database.search(query, person.category, count, exclude=person.exclude)
            names, pictures = found.ids, [self.database.picture(row) for row in found.rows]
            vectors, split = self.database.memory.embeddings[list(found.rows)], ", ".join(found.splits)
        weights, similarities = np.full(count, 1.0, np.float32), [None] * count
        if self.fusion == "pool" or self.weighting != "equal":
            # Without a text the garments can only be asked how well they agree.
            kind = "agreement" if query is None and self.weighting != "equal" else self.weighting
            text, looks = jnp.asarray(vectors[:1] if query is None else query[None]), jnp.asarray(vectors)[None]
            weights = np.asarray(garment_weights(text, looks, kind))[0]
        if query is not None:
            similarities = (vectors @ query).tolist()
            kept = accepted(jnp.asarray([similarities]), self.reject, self.reject_below)
            weights = weights * np.asarray(kept)[0]
        used = [
            UsedGarment(
                name=name, retrieved=not person.garments, similarity=similarity, weight=float(weight), picture=picture
            )
            for name, picture, similarity, weight in zip(names, pictures, similarities, weights, strict=True)
        ]
        return used, split

    def _fitted(self, person: Person) -> dict[str, np.ndarray]:
        """Person, mask and keypoints at the model's size."""
        shape, seen = self.model.image_size, seen_part(person.mask, self.model.image_size, self.window)
        image = person.image[seen]
        mask = fit_grey(person.mask[seen].astype(np.uint8) * 255, shape, Image.Resampling.BILINEAR) > 127
        factor = self.model.vae.factor
        if not mask[::factor, ::factor].any():  # what the U-Net sees of it
            raise UserError("mask: marks nothing in the model's small picture; make the part to change larger")
        keypoints = np.zeros((18, 3), np.float32)
        if person.keypoints is not None:
            (height, width), ((top, _), (left, _)) = place_in(image.shape[:2], shape)
            scale = np.array([width / image.shape[1], height / image.shape[0]])
            keypoints = np.array(person.keypoints, np.float32)
            corner = seen[1].start, seen[0].start
            keypoints[:, :2] = (keypoints[:, :2] - corner) * scale + (left, top)
            # Joints outside what the model sees are missing to it (`pose_maps`).
            keypoints = np.where(keypoints[:, 2:] > 0, keypoints, 0).astype(np.float32)
        return {"person": fit(image, shape, "edge"), "mask": mask.astype(np.float32), "keypoints": keypoints}

    def _result(self, person, image, garments, split, seconds) -> Edited:
        seen = seen_part(person.mask, self.model.image_size, self.window)
        shape = person.image[seen].shape[:2]
        (height, width), ((top, _), (left, _)) = place_in(shape, self.model.image_size)
        drawn = person.image.copy()
        drawn[seen] = resize(image[top : top + height, left : left + width], shape)
        warnings = []
        if self.model.pose and (person.keypoints is None or not person.keypoints[:, 2].any()):
            warnings.append(NO_POSE)
        kept = sum(garment.weight > 0 for garment in garments)
        if garments and not kept:
            warnings.append("no garment is near enough to the text: the text alone was used")
        shown = min(kept, 1) if self.fusion == "pool" else kept
        return Edited(
            image=np.where(person.mask[..., None], drawn, person.image),
            garments=tuple(garments),
            mask=person.mask,
            prompt=self.prompts.shown(person.text, person.category, shown),
            detail=_top(garments).name if kept and self._shows_detail else None,
            database_split=split,
            target_excluded=bool(person.exclude),
            warnings=tuple(warnings),
            seconds=seconds,
        )


def seen_part(
    mask: Bool[np.ndarray, "h w"], size: tuple[int, int], window: float
) -> tuple[slice, slice]:
    """(rows, columns) of the picture that the model sees: of its own proportions, around the mask, or everything.

    The mask's box takes `window` of the height or width, whichever is tighter (0: everything is seen); at the picture's
    border it lies off the middle, and where the picture is too small for it all of the picture is seen.
    """
    if not window:
        return slice(0, mask.shape[0]), slice(0, mask.shape[1])
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = rows[-1] + 1 - rows[0], columns[-1] + 1 - columns[0]
    height = max(box[0], box[1] * size[0] / size[1]) / window
    parts = []
    for side, length, first, last in (
        (mask.shape[0], height, rows[0], rows[-1] + 1),
        (mask.shape[1], height * size[1] / size[0], columns[0], columns[-1] + 1),
    ):
        length = min(side, round(length))
        start = int(np.clip(round((first + last - length) / 2), 0, side - length))
        parts.append(slice(start, start + length))
    return parts[0], parts[1]


def _top(garments: Sequence[UsedGarment]) -> UsedGarment:
    """The one that counts most; of several the nearest."""
    return max(garments, key=lambda garment: garment.weight)


def _denoise(model: FashionRAG, fusion, placeholder: int, plain_only: bool, params, inputs, table, scale):
    words = counts = prompt = gates = None
    if "garments" in inputs:
        garments, weights = to_float(inputs["garments"]), inputs["weights"]
        some = (weights.sum(axis=1) > 0).astype(jnp.float32)
        gates = Gates(reference=some, adapter=some)
        if model.inversion is None:
            prompt = model.image_prompt(params, garments, weights)
        else:
            words, counts = fuse_words(model.words(params, garments), weights, fusion)
    context = model.encode_prompt(params, inputs["ids"], words, counts, placeholder)
    plain = model.encode_prompt(params, inputs["plain"])
    if counts is not None:  # all garments rejected: the prompt of the text alone
        context = jnp.where((counts > 0)[:, None, None], context, plain)
    person, mask = to_float(inputs["person"]), inputs["mask"]
    conditions = model.condition(
        params,
        person,
        mask,
        inputs["keypoints"],
        context,
        plain=plain,
        top=to_float(inputs["top"]) if "top" in inputs else None,
        image_prompt=prompt,
        gates=gates,
    )
    empty = conditions.unconditional(model.encode_prompt(params, inputs["empty"]))
    denoise = guided(
        partial(model.denoise, params),
        conditions,
        empty,
        1 if plain_only else scale,
    )
    return sample(denoise, table, inputs["noise"], key=jax.vmap(jax.random.key)(inputs["seeds"]))


def _decode(model: FashionRAG, params, latents):
    return to_uint8(model.decode(params, latents))
