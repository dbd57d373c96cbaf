"""Photos in, flat-lays out: `GarmentGenerator` holds model, parameters and memory and runs batches."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float32, Int32, UInt8

from ragdiff_jax.data.attributes import attribute_ids
from ragdiff_jax.data.images import square
from ragdiff_jax.data.pixels import to_float, to_uint8
from ragdiff_jax.data.tokenizer import Tokenizer
from ragdiff_jax.diffusion import Sampler, ddim, dpm_solver_pp_2m, guided, sample
from ragdiff_jax.errors import UserError
from ragdiff_jax.parallel import mesh_context
from ragdiff_jax.retrieval import Memory, fuse_landmarks, make_searcher, slle_weights
from ragdiff_jax.retrieval.index import SearcherKind
from ragdiff_jax.systems.ragdiffusion import RAGDiffusion
from ragdiff_jax.weights.model_folder import TOKENIZERS, encoder_fingerprint, load, read_model

SAMPLERS = {"ddim": ddim, "dpm": dpm_solver_pp_2m}
SamplerName = Literal["ddim", "dpm"]
Image = UInt8[np.ndarray, "_ _ 3"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrieved:
    """What the memory said to one photo: its K neighbours, nearest first, and the silhouette used.

    `rows` are rows of the memory. `choice` is the neighbour whose landmark is used; `landmark_source` says
    how it was chosen: `fused` (SLLE's blend) or `neighbour I` (asked for).
    """

    ids: tuple[str, ...]
    rows: tuple[int, ...]
    cosines: Float32[np.ndarray, " k"]
    weights: Float32[np.ndarray, " k"]
    landmark: Bool[np.ndarray, "h w"]
    choice: int
    landmark_source: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generated:
    """A flat-lay, what it was made from, and the seconds it took: its share of its batch.

    `seconds`: annotate, retrieve, denoise, decode, and total, which also has what compiling took.
    """

    image: Image
    retrieved: Retrieved
    seconds: Mapping[str, float]


class GarmentGenerator:
    """Makes flat-lays of photos with one model and one memory.

    A photo's result depends on the photo, its description and the seed alone, not on its company: batches
    have one size (the last is padded; a single photo goes alone), every photo starts from the seed's noise.
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
    ):
        """`params` as `load` gives them, on `mesh` if there is one; a tokenizer for each text encoder.

        Raises `UserError` for a memory of another encoder or landmark size, or with too few garments.
        """
        own, size = encoder_fingerprint(model, params), (model.image_size, model.image_size)
        if memory.fingerprint != own:
            raise UserError(
                f"{memory.path}: built by encoder {memory.fingerprint[:12]}, the model's is {own[:12]}; "
                "build the memory again with this model: ragdiff memory build"
            )
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
        self.batch_size, self.mesh = batch_size, mesh
        self._searcher = make_searcher(searcher, memory.embeddings)
        self._programs: dict[tuple, Callable] = {}
        self._clock: _Clock | None = None

    @classmethod
    def from_folders(cls, model_folder: str | Path, memory_folder: str | Path, **options) -> "GarmentGenerator":
        """Loads a model folder and a memory; `options` are the constructor's. Raises `UserError`."""
        model, params = load_model(model_folder, mesh=options.get("mesh"))
        names = TOKENIZERS[: len(model.text_encoders)]
        tokenizers = [Tokenizer.from_folder(Path(model_folder) / name) for name in names]
        return cls(model, params, Memory.open(memory_folder), tokenizers, **options)

    @property
    def image_size(self) -> int:
        """The side of the flat-lays in pixels."""
        return self.model.image_size

    def check(self, *, landmark: int | None = None, steps: int = 1, sampler: SamplerName = "ddim") -> None:
        """Raises `UserError` for a neighbour or a number of steps that there isn't, before any work."""
        if landmark is not None and not 0 <= landmark < self.model.neighbours:
            last = self.model.neighbours - 1
            raise UserError(f"landmark {landmark}: choose a neighbour from 0 (nearest) to {last}")
        SAMPLERS[sampler](self.model.schedule, steps)

    def retrieve(
        self,
        images: Sequence[Image],
        attributes: Sequence[Mapping[str, str]] | None = None,
        *,
        landmark: int | None = None,
    ) -> list[Retrieved]:
        """The neighbours of each photo (any size) and the silhouette to use.

        `attributes`: names and values for each photo (default: all unknown). `landmark`: use the silhouette
        of that neighbour, from 0. Raises `UserError` for an attribute value or neighbour that there isn't.
        """
        self.check(landmark=landmark)
        results = []
        for start in range(0, len(images), self.batch_size):
            part = slice(start, start + self.batch_size)
            photos, ids, _ = self._batch(images[part], attributes and attributes[part], None)
            results += self._retrieve(photos, ids, landmark)[0][: len(images[part])]
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
        sampler: SamplerName = "ddim",
        landmark: int | None = None,
    ) -> list[Generated]:
        """The flat-lay of each photo (any size).

        `attributes` and `landmark` as in `retrieve`; `captions`: of each photo (default: the empty prompt);
        `guidance`: None takes the model's own. Raises `UserError` as `retrieve` does and for bad steps.
        """
        self.check(landmark=landmark, steps=steps, sampler=sampler)
        table = SAMPLERS[sampler](self.model.schedule, steps)
        scale = self.model.guidance_scale if guidance is None else guidance
        results = []
        for start in range(0, len(images), self.batch_size):
            part = slice(start, start + self.batch_size)
            inputs = self._batch(images[part], attributes and attributes[part], captions and captions[part])
            results += self._generate(*inputs, len(images[part]), table, float(scale), seed, landmark)
        return results

    def _batch(self, images, attributes, captions):
        """Photos uint8 [b, s, s, 3], attribute ids [b, 10], text ids; padded to a batch by the first."""
        size = 1 if len(images) == 1 else self.batch_size
        rows = [*range(len(images)), *[0] * (size - len(images))]
        attributes = attributes or [{}] * len(images)
        captions = captions or [""] * len(images)
        photos = [square(image, self.image_size, fill="edge") for image in images]
        ids = [attribute_ids(values) for values in attributes]
        texts = tuple(tokenizer.encode([captions[row] for row in rows]) for tokenizer in self.tokenizers)
        return np.stack([photos[row] for row in rows]), np.stack([ids[row] for row in rows]), texts

    def _retrieve(self, photos: UInt8[np.ndarray, "b s s 3"], ids: Int32[np.ndarray, "b a"], landmark: int | None):
        """([Retrieved], what conditions the sampler) of a batch."""
        model = self.model
        embedding = self._run("embed", _embed, model, self.params, photos, ids)
        rows, cosines = self._searcher.search(embedding, model.neighbours)
        rows, cosines = np.asarray(rows), np.asarray(cosines)
        neighbours = self.memory.embeddings[rows]
        masks = self.memory.landmarks[rows]
        weights, fused, choice = self._run("fuse", _fuse, model, embedding, neighbours, masks)
        source = "fused"
        if landmark is not None:
            fused, choice = masks[:, landmark], np.full(len(rows), landmark)
            source = f"neighbour {landmark}"
        fused, choice, weights = np.asarray(fused), np.asarray(choice), np.asarray(weights)
        retrieved = [
            Retrieved(
                ids=tuple(self.memory.items[row].id for row in rows[i]),
                rows=tuple(int(row) for row in rows[i]),
                cosines=cosines[i],
                weights=weights[i],
                landmark=fused[i],
                choice=int(choice[i]),
                landmark_source=source,
            )
            for i in range(len(rows))
        ]
        return retrieved, (embedding, neighbours, weights, fused)

    def _generate(self, photos, ids, texts, count, table: Sampler, scale: float, seed, landmark) -> list[Generated]:
        model, started = self.model, time.perf_counter()
        self._clock = clock = _Clock()
        retrieved, pieces = self._retrieve(photos, ids, landmark)
        clock.lap("retrieve")
        empty = tuple(tokenizer.encode([""]) for tokenizer in self.tokenizers)
        shape = (1, model.latent_size, model.latent_size, model.unet.in_channels)
        noise = jnp.repeat(jax.random.normal(jax.random.key(seed), shape), len(photos), axis=0)
        # Scale 1 has no second half: another program. Other scales are an argument, so they share one.
        arguments = (photos, *pieces, texts, empty, noise, table)
        if scale == 1:
            latents = self._run("denoise plain", partial(_denoise, scale=None), model, self.params, *arguments)
        else:
            latents = self._run("denoise", _denoise, model, self.params, *arguments, np.float32(scale))
        latents.block_until_ready()
        clock.lap("denoise")
        images = np.asarray(self._run("decode", _decode, model, self.params, latents))
        clock.lap("decode")
        total = time.perf_counter() - started
        seconds = {name: clock.seconds[name] / count for name in ("retrieve", "denoise", "decode")}
        seconds = {"annotate": 0.0, **seconds, "total": total / count}
        return [Generated(image=images[i], retrieved=retrieved[i], seconds=seconds) for i in range(count)]

    def _run(self, name: str, function: Callable, model: RAGDiffusion, *arguments):
        """`function(model, *arguments)`, compiled once for each set of shapes; compiling stops the clock."""
        inputs = arguments[1:] if arguments and arguments[0] is self.params else arguments
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(inputs))
        with mesh_context(self.mesh, ()) if self.mesh is not None else contextlib.nullcontext():
            program = self._programs.get((name, shapes))
            if program is None:
                start = time.perf_counter()
                program = jax.jit(partial(function, model)).lower(*arguments).compile()
                self._programs[name, shapes] = program
                if self._clock is not None:
                    self._clock.pause(time.perf_counter() - start)
            return program(*arguments)


class _Clock:
    """Laps of a stopwatch that is stopped while something compiles."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self._last = now - self._last, now

    def pause(self, seconds: float) -> None:
        self._last += seconds


def _embed(model: RAGDiffusion, params, photos, attributes):
    return model.embed(params, to_float(photos), attributes)


def _fuse(model: RAGDiffusion, embedding, neighbours, masks):
    weights = slle_weights(embedding, neighbours, model.reg)
    return weights, *fuse_landmarks(masks, weights)


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
    table,
    scale,
):
    photos = to_float(photos)
    text, nothing = model.encode_text(params, texts), model.encode_text(params, empty)
    landmark = landmark.astype(jnp.float32)
    masks = jnp.repeat(landmark[:, None], neighbours.shape[1], axis=1)
    conditions = model.condition(params, photos, embedding, neighbours, weights, masks, text, landmark=landmark)
    denoise = guided(
        partial(model.denoise, params),
        conditions,
        model.unconditional(params, conditions, nothing),
        1 if scale is None else scale,
        batch_axes=conditions.batch_axes(),
    )
    return sample(denoise, table, noise)


def _decode(model: RAGDiffusion, params, latents):
    return to_uint8(model.decode(params, latents))


def load_model(folder: str | Path, *, mesh: Mesh | None = None) -> tuple[RAGDiffusion, dict[str, Any]]:
    """(description, parameters) of a model folder. Raises `UserError` for one that is missing or damaged."""
    model = read_model(folder)
    return model, load(model, folder, mesh=mesh)
