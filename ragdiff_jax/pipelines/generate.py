"""Photos in, flat-lays out: `GarmentGenerator` holds model, parameters and memory and runs batches."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32, Int64, UInt8

from ragdiff_jax.data.attributes import STRUCTURAL, attribute_ids, check_attributes
from ragdiff_jax.data.images import square
from ragdiff_jax.data.pixels import to_float, to_uint8
from ragdiff_jax.data.tokenizer import Tokenizer
from ragdiff_jax.diffusion import Sampler, SamplerName, check_scale, guided, named_sampler, sample
from ragdiff_jax.errors import UserError
from ragdiff_jax.pipelines.doubts import Limits, fit_landmark, memory_limits, photo_doubts
from ragdiff_jax.pipelines.programs import Clock, Programs
from ragdiff_jax.pipelines.retrieved import Alternative, Generated, Image, Landmark, NthAlternative, Retrieved
from ragdiff_jax.retrieval import Memory, make_searcher
from ragdiff_jax.retrieval.index import SearcherKind
from ragdiff_jax.systems.attribute_head import HeadAttributes, read_photos
from ragdiff_jax.systems.ragdiffusion import TEXT_PARTS, RAGDiffusion
from ragdiff_jax.systems.zero_shot import Calibration, ZeroShotAttributes, clip_photos, clip_prompts
from ragdiff_jax.weights.model_folder import (
    IMAGE_ENCODER,
    TOKENIZERS,
    check_predicts,
    encoder_fingerprint,
    load,
    predictor_part,
    read_calibration,
    read_model,
)


class GarmentGenerator:
    """Makes flat-lays of photos with one model and one memory.

    A photo's result depends on the photo, its description and the seed alone, not on its company: batches
    have one size (the last is padded; a single photo goes alone), every photo starts from the seed's noise.
    On a mesh a batch is cut over `data` and `fsdp`, as in training; its size is rounded up to be divided by these.
    Latents to image are two programs, the sampling loop and the decoder, so that the time of each is known;
    nothing returns to the host between steps.
    """

    def __init__(
        self,
        model: RAGDiffusion,
        params: Mapping[str, Any],
        memory: Memory,
        tokenizers: Sequence[Tokenizer],
        *,
        batch_size: int = 4,
        searcher: SearcherKind = "auto",
        mesh: Mesh | None = None,
        calibration: Mapping[str, Calibration] | None = None,
    ):
        """`params` as `load` gives them, on `mesh` if there is one; a tokenizer for each text encoder.

        `calibration`: of the attributes that the model predicts (`read_calibration`); a head of StructureNet's predicts
        none without.
        Raises `UserError` for a memory of another encoder or landmark size, or with too few garments.
        """
        memory.check_encoder(encoder_fingerprint(model, params))
        size = (model.image_size, model.image_size)
        if memory.manifest.landmark_size != size:
            raise UserError(
                f"{memory.path}: its landmarks are {memory.manifest.landmark_size}, the model's pictures "
                f"{size}; build the memory again with this model: ragdiff memory build"
            )
        if len(memory) < model.neighbours:
            raise UserError(
                f"{memory.path}: holds {len(memory)} garments, the model retrieves {model.neighbours}; "
                "add more: ragdiff memory add"
            )
        self.model, self.params, self.memory, self.tokenizers = model, params, memory, tuple(tokenizers)
        self._programs = Programs(mesh)
        self.batch_size = self._programs.whole_batches(batch_size)
        self._searcher = make_searcher(searcher, memory.embeddings)
        self.search_choice = self._searcher.choice
        run = self._programs.run
        self._doubt_limits: Limits | None = None
        self._predictor: ZeroShotAttributes | HeadAttributes | None = None
        if model.image_encoder is not None:
            part = TEXT_PARTS[len(model.text_encoders) - 1]
            text, vision = (model.text_encoders[-1], params[part]), (model.image_encoder, params[IMAGE_ENCODER])
            self._predictor = ZeroShotAttributes(
                lambda photos: run("clip photos", partial(clip_photos, vision[0]), vision[1], photos),
                lambda ids: run("clip prompts", partial(clip_prompts, text[0]), text[1], ids),
                self.tokenizers[-1],
                calibration or {},
            )
        elif calibration and model.structure_net.reads_attributes:
            read = partial(read_photos, model.structure_net)
            own = params["structure_net"]
            self._predictor = HeadAttributes(lambda photos: run("read", read, own, photos), calibration)

    @classmethod
    def from_folders(cls, model_folder: str | Path, memory_folder: str | Path, **options) -> "GarmentGenerator":
        """Loads a model folder and a memory; `options` are the constructor's. Raises `UserError`."""
        model, params = load_model(model_folder, mesh=options.get("mesh"))
        names = TOKENIZERS[: len(model.text_encoders)]
        tokenizers = [Tokenizer.from_folder(Path(model_folder) / name) for name in names]
        options.setdefault("calibration", read_calibration(Path(model_folder) / predictor_part(model)))
        return cls(model, params, Memory.open(memory_folder), tokenizers, **options)

    @property
    def image_size(self) -> int:
        """The side of the flat-lays in pixels."""
        return self.model.image_size

    @property
    def predicts(self) -> bool:
        """Whether the model can predict attributes: by an image encoder, or a calibrated head of StructureNet's."""
        return self._predictor is not None

    def check(
        self,
        *,
        landmark: Landmark | None = None,
        steps: int = 1,
        sampler: SamplerName | None = None,
        predict: bool = False,
    ) -> None:
        """Raises `UserError` for a landmark, a number of steps or a prediction that there can't be, before any work."""
        if landmark is not None and self.model.landmark_guider is None:
            raise UserError("landmark: this model has no landmark_guider and looks at no silhouette; leave it out")
        if isinstance(landmark, NthAlternative):
            self._check_alternative(landmark.place)
        elif isinstance(landmark, Integral):
            last = self.model.neighbours - 1
            if not 0 <= landmark <= last:
                raise UserError(f"landmark {landmark}: choose a neighbour from 0 (nearest) to {last}")
        elif landmark is not None:
            if np.ndim(landmark) != 2:
                raise UserError("landmark: give the rank of a neighbour, an NthAlternative or a mask [h, w]")
            fit_landmark(np.asarray(landmark, bool), self.image_size)
        check_predicts(self.predicts or not predict, "the model")
        named_sampler(sampler or self.model.sampler, self.model.schedule, steps)

    def _check_alternative(self, place: int) -> None:
        if self.model.mask_unet is not None:
            raise UserError(
                f"alternative {place}: this model draws its silhouette from the photo and has none; name a neighbour "
                "(--landmark) to use another"
            )
        last = self.model.landmark_rule.offers(len(self.memory)) - 1
        if not 0 <= place <= last:
            raise UserError(f"alternative {place}: choose from 0 (what is used anyway) to {last}")

    def retrieve(
        self,
        images: Sequence[Image],
        attributes: Sequence[Mapping[str, str]] | None = None,
        *,
        predict: bool = False,
        landmark: Landmark | None = None,
    ) -> list[Retrieved]:
        """The neighbours of each photo (any size) and the silhouette to use.

        `attributes`: names and values for each photo (default: none). `predict`: the model's CLIP says those that are
        not given, where it is sure enough; the others are unknown. `landmark`: use the silhouette of that neighbour,
        from 0, that of each photo's `NthAlternative`, or this mask. Raises `UserError` for an attribute value,
        neighbour or alternative that there isn't, for a mask that is empty or full, and for a model that can't predict.
        """
        self.check(landmark=landmark, predict=predict)
        results = []
        for start in range(0, len(images), self.batch_size):
            part = slice(start, start + self.batch_size)
            photos, given, _ = self._batch(images[part], attributes and attributes[part], None)
            described = self._describe(photos, given, predict)
            results += self._retrieve(photos, described, landmark)[0][: len(images[part])]
        return results

    def generate(
        self,
        images: Sequence[Image],
        attributes: Sequence[Mapping[str, str]] | None = None,
        *,
        captions: Sequence[str] | None = None,
        steps: int = 30,
        guidance: float | None = None,
        seed: int = 0,
        sampler: SamplerName | None = None,
        predict: bool = False,
        landmark: Landmark | None = None,
    ) -> list[Generated]:
        """The flat-lay of each photo (any size).

        `attributes`, `predict` and `landmark` as in `retrieve`; `captions`: of each photo (default: the empty prompt);
        `guidance`, `sampler`: None takes the model's own. Raises `UserError` as `retrieve` does, and for bad steps
        and scales.
        """
        self.check(landmark=landmark, steps=steps, sampler=sampler, predict=predict)
        table = named_sampler(sampler or self.model.sampler, self.model.schedule, steps)
        scale = float(self.model.guidance_scale if guidance is None else guidance)
        check_scale(scale)
        results = []
        for start in range(0, len(images), self.batch_size):
            part = slice(start, start + self.batch_size)
            inputs = self._batch(images[part], attributes and attributes[part], captions and captions[part])
            results += self._generate(*inputs, len(images[part]), table, scale, seed, predict, landmark)
        return results

    def _batch(self, images, attributes, captions):
        """Photos uint8 [b, s, s, 3], their given attributes, text ids; padded to a batch by the first."""
        size = 1 if len(images) == 1 else self.batch_size
        rows = [*range(len(images)), *[0] * (size - len(images))]
        attributes = attributes or [{}] * len(images)
        captions = captions or [""] * len(images)
        photos = [square(image, self.image_size, fill="edge") for image in images]
        given = [check_attributes(values) for values in attributes]
        texts = tuple(tokenizer.encode([captions[row] for row in rows]) for tokenizer in self.tokenizers)
        return np.stack([photos[row] for row in rows]), [given[row] for row in rows], texts

    def _describe(self, photos, given: Sequence[dict[str, str]], predict: bool) -> list[tuple[dict, dict]]:
        """(the structural attributes to use, the source of each of the ten) of each photo of a batch."""
        found = self._predictor.predict(photos, given) if predict else [{}] * len(given)
        described = []
        for ours, theirs in zip(given, found, strict=True):
            values = {**theirs, **ours}
            sources = {name: "given" if name in ours else "predicted" for name in STRUCTURAL if name in values}
            attributes = {name: values[name] for name in sources}
            described.append((attributes, dict.fromkeys(STRUCTURAL, "unknown") | sources))
        return described

    def _limits(self) -> Limits:
        """Where doubt begins for this memory; worked out once."""
        if self._doubt_limits is None:
            size = self.model.image_size
            self._doubt_limits = memory_limits(self.memory, self.model.neighbours, size, self._highest_cosines)
        return self._doubt_limits

    def _highest_cosines(self, photos: UInt8[np.ndarray, "n s s 3"], rows: Int64[np.ndarray, " n"]):
        """Of photos with unknown attributes, each photo's own row of the memory left out."""
        unknown = np.zeros((self.batch_size, len(STRUCTURAL)), np.int32)
        found = []
        for start in range(0, len(photos), self.batch_size):
            part = np.arange(start, start + self.batch_size).clip(max=len(photos) - 1)
            embedding = self._embedded(photos[part], unknown)
            found.append(np.asarray(self._searcher.search(embedding, 1, rows[part])[1])[:, 0])
        return np.concatenate(found)[: len(photos)]

    def _retrieve(self, photos: UInt8[np.ndarray, "b s s 3"], described, landmark: Landmark | None):
        """([Retrieved], what conditions the sampler) of a batch."""
        model = self.model
        limits = self._limits()
        ids = np.stack([attribute_ids(attributes) for attributes, _ in described])
        embedding = self._embedded(photos, ids)
        rule = model.landmark_rule
        ranked, cosines = self._searcher.search(embedding, rule.considered(len(self.memory)))
        ranked, cosines = np.asarray(ranked), np.asarray(cosines)
        rows = ranked[:, : rule.k]
        neighbours = self.memory.embeddings[rows]
        masks = self.memory.landmarks[ranked]
        weights, ranks, chances = map(
            np.asarray, self._programs.run("choose", rule, embedding, neighbours, cosines, masks)
        )
        taken, source, fused, doubts = ranks[:, 0], "likeliest" if rule.candidates else "fused", None, ()
        if isinstance(landmark, NthAlternative):
            taken, source = ranks[:, landmark.place], f"alternative {landmark.place}"
        elif isinstance(landmark, Integral):
            taken, source = np.full(len(rows), landmark), f"neighbour {landmark}"
        elif landmark is not None:
            own, doubts = fit_landmark(np.asarray(landmark, bool), model.image_size)
            fused, source = np.repeat(own[None], len(rows), axis=0), "file"
        elif model.mask_unet is not None:
            fused, source = np.asarray(self._run("landmark", _predict_landmark, photos, rows=len(rows))), "predicted"
        elif model.landmark_guider is None:
            source = "unused"
        of_memory = fused is None and source != "unused"
        choice = taken.tolist() if of_memory else [None] * len(rows)
        fused = masks[np.arange(len(rows)), taken] if fused is None else fused
        masks, cosines = masks[:, : rule.k], cosines[:, : rule.k]
        retrieved = [
            Retrieved(
                ids=tuple(self.memory.items[row].id for row in rows[i]),
                rows=tuple(int(row) for row in rows[i]),
                cosines=cosines[i],
                weights=weights[i],
                landmark=fused[i],
                choice=choice[i],
                landmark_id=None if choice[i] is None else self.memory.items[ranked[i, choice[i]]].id,
                landmark_source=source,
                attributes=described[i][0],
                attribute_sources=described[i][1],
                alternatives=self._alternatives(ranked[i], ranks[i], chances[i]),
                warnings=(*photo_doubts(photos[i], cosines[i], masks[i], limits), *doubts),
            )
            for i in range(len(rows))
        ]
        return retrieved, (embedding, neighbours, weights, fused)

    def _alternatives(self, ranked, ranks, chances) -> tuple[Alternative, ...]:
        """What is offered to one photo, of its neighbours' rows `ranked`."""
        if self.model.landmark_guider is None or self.model.mask_unet is not None:
            return ()
        offered = []
        for rank, chance in zip(ranks.tolist(), chances.tolist(), strict=True):
            row = int(ranked[rank])
            known = None if np.isnan(chance) else chance
            offered.append(Alternative(id=self.memory.items[row].id, row=row, rank=rank, chance=known))
        return tuple(offered)

    def _generate(
        self, photos, given, texts, count, table: Sampler, scale: float, seed, predict, landmark
    ) -> list[Generated]:
        model, started = self.model, time.perf_counter()
        clock = Clock(self._programs)
        with clock.paused():
            self._limits()
        described = self._describe(photos, given, predict)
        clock.lap("annotate")
        retrieved, pieces = self._retrieve(photos, described, landmark)
        clock.lap("retrieve")
        empty = tuple(tokenizer.encode([""]) for tokenizer in self.tokenizers)
        shape = (1, model.latent_size, model.latent_size, model.unet.in_channels)
        noise = jnp.repeat(jax.random.normal(jax.random.key(seed), shape), len(photos), axis=0)
        # Scale 1 has no second half: another program. Other scales are an argument, so they share one.
        rows, seeds = len(photos), np.full(len(photos), seed % 2**32, np.uint32)
        arguments = (photos, *pieces, texts, empty, noise, seeds, table)
        name = "denoise with noise" if table.stochastic else "denoise"
        if scale == 1:
            latents = self._run(f"{name} plain", partial(_denoise, scale=None), *arguments, rows=rows)
        else:
            latents = self._run(name, _denoise, *arguments, np.float32(scale), rows=rows)
        latents.block_until_ready()
        clock.lap("denoise")
        images = np.asarray(self._run("decode", _decode, latents, rows=rows))
        clock.lap("decode")
        total = time.perf_counter() - started
        seconds = {name: clock.seconds[name] / count for name in ("annotate", "retrieve", "denoise", "decode")}
        seconds = {**seconds, "total": total / count}
        return [Generated(image=images[i], retrieved=retrieved[i], seconds=seconds) for i in range(count)]

    def _embedded(self, photos, ids) -> Float32[np.ndarray, "b d"]:
        return np.asarray(self._run("embed", _embed, photos, ids, rows=len(photos)))

    def _run(self, name: str, function: Callable, *inputs, rows: int):
        """`function(model, params, *inputs)` of a batch of so many rows."""
        return self._programs.run(name, partial(function, self.model), self.params, *inputs, rows=rows)


def _embed(model: RAGDiffusion, params, photos, attributes):
    return model.embed(params, to_float(photos), attributes)


def _predict_landmark(model: RAGDiffusion, params, photos):
    return model.landmark(params, to_float(photos), None, None)


def _denoise(
    model: RAGDiffusion,
    params,
    photos,
    embedding,
    neighbours,
    weights,
    landmark,
    texts,
    empty,
    noise,
    seeds,
    table,
    scale,
):
    photos = to_float(photos)
    text, nothing = model.encode_text(params, texts), model.encode_text(params, empty)
    conditions = model.condition(params, photos, embedding, neighbours, weights, None, text, landmark=landmark)
    denoise = guided(
        partial(model.denoise, params),
        conditions,
        model.unconditional(params, conditions, nothing),
        1 if scale is None else scale,
    )
    return sample(denoise, table, noise, key=jax.vmap(jax.random.key)(seeds))


def _decode(model: RAGDiffusion, params, latents):
    return to_uint8(model.decode(params, latents))


def load_model(folder: str | Path, *, mesh: Mesh | None = None) -> tuple[RAGDiffusion, dict[str, Any]]:
    """(description, parameters) of a model folder, in the dtype that its model.json computes in.

    Raises `UserError` for one that is missing or damaged.
    """
    model = read_model(folder)
    return model, load(model, folder, mesh=mesh, dtype=model.dtype)
