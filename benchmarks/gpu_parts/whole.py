"""Whole programs: a picture as the pipelines make it, a train step as the loop takes it."""

import contextlib
import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gpu_parts.program import Measurement, Program, Run
from ragdiff_jax.data.pipeline import PairShapes
from ragdiff_jax.data.pixels import to_float, to_uint8
from ragdiff_jax.diffusion import ddim, guided, sample
from ragdiff_jax.parallel import batch_sharding, make_mesh, mesh_context, replicated
from ragdiff_jax.retrieval.device_memory import abstract_memory
from ragdiff_jax.systems.ragdiffusion import TEXT_PARTS, RAGDiffusion
from ragdiff_jax.training.loop import make_plan
from ragdiff_jax.training.lora import LoRAObjective
from ragdiff_jax.training.objectives.common import PairObjective
from ragdiff_jax.training.objectives.ragdiffusion import RAGDiffusionObjective
from ragdiff_jax.training.objectives.structure_net import StructureNetObjective
from ragdiff_jax.training.settings import TrainSettings
from ragdiff_jax.training.step import jit_step, make_step

S = jax.ShapeDtypeStruct
TEXT_TOKENS = 77
SERVED = ("unet", "reference_net", "ep_adapter", "landmark_guider", "vae", *TEXT_PARTS)
SMALL = "ep_adapter|landmark_guider"
TRAINABLE = {
    "adapter": f"^({SMALL})/",
    "lora": f"^({SMALL})/",
    "main": f"^(unet|{SMALL})/",
    "full": f"^(unet|reference_net|{SMALL})/",
}


def without_attention(model: RAGDiffusion) -> RAGDiffusion:
    """The same system with attention whose products can be counted."""
    return dataclasses.replace(model, attention="xla")


def parameters(model: RAGDiffusion, parts) -> dict[str, Any]:
    """Shapes of the parts in the dtype of the computation, as they are served."""
    shapes = nn.meta.unbox(jax.eval_shape(partial(model.init, parts=parts), jax.random.key(0)))
    return jax.tree.map(lambda leaf: S(leaf.shape, model.dtype), shapes)


def denoise(
    model: RAGDiffusion, params, photos, embedding, neighbours, weights, landmark, texts, empty, noise, table, scale
):
    """What `pipelines.generate` does between retrieval and latents, in one program."""
    text, nothing = model.encode_text(params, texts), model.encode_text(params, empty)
    photos = to_float(photos)
    conditions = model.condition(params, photos, embedding, neighbours, weights, None, text, landmark=landmark)
    unconditional = model.unconditional(params, conditions, nothing)
    predict = partial(model.denoise, params)
    return sample(guided(predict, conditions, unconditional, scale), table, noise)


def decode(model: RAGDiffusion, params, latents):
    return to_uint8(model.decode(params, latents))


def image(model: RAGDiffusion, batches, steps: int) -> Iterator[Measurement]:
    """Photo, retrieved vectors and silhouette to a picture: text encoders, VAE, ReferenceNet once, guided DDIM."""
    served = [part for part in SERVED if part in model.modules()]
    params = parameters(model, served)
    side, latent = model.image_size, (model.latent_size, model.latent_size, model.unet.in_channels)
    width = model.structure_net.embed_dim
    for b in batches:
        arguments = (
            params,
            S((b, side, side, 3), jnp.uint8),
            S((b, width), jnp.float32),
            S((b, model.neighbours, width), jnp.float32),
            S((b, model.neighbours), jnp.float32),
            S((b, side, side), jnp.bool_),
            (S((b, TEXT_TOKENS), jnp.int32),) * len(model.text_encoders),
            (S((1, TEXT_TOKENS), jnp.int32),) * len(model.text_encoders),
            S((b, *latent), jnp.float32),
            jax.tree.map(lambda x: S(x.shape, x.dtype), ddim(model.schedule, steps)),
            S((), jnp.float32),
        )
        plain = without_attention(model)
        programs = {
            "denoise": Program(
                function=jax.jit(partial(denoise, model)), arguments=arguments, counted=partial(denoise, plain)
            ),
            "decode": Program(
                function=jax.jit(partial(decode, model)),
                arguments=({"vae": params["vae"]}, S((b, *latent), jnp.float32)),
                counted=partial(decode, plain),
            ),
        }

        def measure(run: Run, b=b):
            inputs = list(run.arrays("denoise"))
            inputs[-2:] = jax.device_put((ddim(model.schedule, steps), np.float32(model.guidance_scale)))
            latents = run.compiled["denoise"](*inputs)
            vae = {"vae": inputs[0]["vae"]}
            sampling = run.seconds(lambda: run.compiled["denoise"](*inputs))
            decoding = run.seconds(lambda: run.compiled["decode"](vae, latents))
            return {
                "batch": b,
                "steps": steps,
                "denoise_s": round(sampling, 4),
                "decode_s": round(decoding, 4),
                "s_image": round((sampling + decoding) / b, 4),
                "images_s": round(b / (sampling + decoding), 3),
                "tflop_image": round(sum(run.flops.values()) / b / 1e12, 2),
                "finite": bool(np.isfinite(latents).all()),
                "seconds": sampling + decoding,
                "flops": sum(run.flops.values()),
            }

        yield Measurement(
            group="image", name=f"image batch {b}", programs=programs, measure=measure, seconds=4.0 + 3.0 * b
        )


def unet(model: RAGDiffusion, batch: int) -> Iterator[Measurement]:
    """One forward pass of MainNet on text alone."""

    def forward(model, params, latents, t, context, pooled, ids):
        return model.modules()["unet"].apply({"params": params["unet"]}, latents, t, context, pooled, ids)

    config, side = model.unet, model.latent_size
    arguments = (
        parameters(model, ["unet"]),
        S((batch, side, side, config.in_channels), jnp.float32),
        S((batch,), jnp.int32),
        S((batch, TEXT_TOKENS, config.cross_attention_dim), model.dtype),
        S((batch, config.text_embed_dim), model.dtype),
        S((batch, 6), jnp.float32),
    )
    program = Program(
        function=jax.jit(partial(forward, model)),
        arguments=arguments,
        counted=partial(forward, without_attention(model)),
    )

    def measure(run: Run):
        arrays = run.arrays("unet")
        seconds = run.seconds(lambda: run.compiled["unet"](*arrays))
        return {"ms": round(1e3 * seconds, 2), "seconds": seconds, "flops": run.flops["unet"]}

    yield Measurement(group="unet", name=f"unet batch {batch}", programs={"unet": program}, measure=measure)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyntheticPairs(RAGDiffusionObjective):
    """The stage without its files."""

    pairs: Any = None
    parts: Any = dataclasses.field(default_factory=dict)
    memory: str = ""
    tokenizers: tuple[str, ...] = ()
    empty_ids: tuple[int, ...] = (0,) * TEXT_TOKENS


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyntheticTowers(StructureNetObjective):
    """The stage without its files."""

    pairs: Any = None


def ragdiffusion_step(
    model: RAGDiffusion, trainable: str, batch: int, memory_size: int, rank: int
) -> Iterator[Measurement]:
    """One optimizer step of RAGDiffusion: augmentation, both encodings, retrieval, both U-Nets, AdamW."""

    def objective(model):
        base = SyntheticPairs(model=model, trainable=TRAINABLE[trainable])
        return LoRAObjective(base=base, rank=rank, alpha=rank, also=TRAINABLE["lora"]) if trainable == "lora" else base

    side, width = model.image_size, model.structure_net.embed_dim
    rows = _fields(PairShapes(side, TEXT_TOKENS), SyntheticPairs)
    constants = {
        "memory": abstract_memory(memory_size, width, side),
        "own_rows": S((memory_size,), jnp.int32),
        "empty_ids": S((TEXT_TOKENS,), jnp.int32),
    }
    settings = TrainSettings(steps=1000, batch_size=batch, frozen_dtype=jnp.dtype(model.dtype).name)
    yield _train(
        "step",
        f"step {trainable} batch {batch} remat {model.remat}",
        objective(model),
        objective(without_attention(model)),
        settings,
        constants,
        rows,
        {"trainable": trainable, "remat": model.remat, "memory_rows": memory_size},
    )


def structure_net_step(model: RAGDiffusion, batches, remat: bool) -> Iterator[Measurement]:
    """One optimizer step of both towers, on pictures of the ViT's own size."""
    rows = _fields(PairShapes(model.structure_net.vision.image_size, 1), SyntheticTowers)
    objective = SyntheticTowers(config=model.structure_net, dtype=jnp.dtype(model.dtype).name, remat=remat)
    for b in batches:
        settings = TrainSettings(steps=1000, batch_size=b)
        name = f"structure_net batch {b}{' remat' if remat else ''}"
        yield _train("structure_net", name, objective, objective, settings, {}, rows, {"remat": remat})


def _fields(pairs: PairShapes, objective: type[PairObjective]):
    """(shape, dtype) of a row of each field that the stage reads."""
    return {name: (x.shape[1:], x.dtype) for name, x in pairs.abstract_batch(1, objective.reads).items()}


def _train(group, name, objective, counted, settings, constants, rows, words) -> Measurement:
    mesh = make_mesh(devices=jax.devices()[:1])
    plan = make_plan(objective, settings, mesh)
    everywhere, batch_places = replicated(mesh), batch_sharding(mesh)
    constants = jax.tree.map(lambda x: S(x.shape, x.dtype, sharding=everywhere), constants)
    batch = {
        field: S((settings.batch_size, *shape), dtype, sharding=batch_places) for field, (shape, dtype) in rows.items()
    }
    program = Program(
        function=jit_step(objective, settings, mesh, plan.state),
        arguments=(plan.state, plan.frozen, constants, batch),
        counted=make_step(counted, settings, mesh),
        context=partial(_in_mesh, mesh),
    )

    def measure(run: Run):
        state, *rest = run.arrays("step")
        out = {"state": state}
        del state

        def call():
            # The state is donated: each step goes on from the last one's.
            out["state"], metrics = run.compiled["step"](out["state"], *rest)
            return metrics

        seconds = run.seconds(call)
        metrics = call()
        return {
            "batch": settings.batch_size,
            **words,
            "trained_m": round(sum(x.size for x in jax.tree.leaves(plan.state.params)) / 1e6, 1),
            "step_s": round(seconds, 4),
            "rows_s": round(settings.batch_size / seconds, 2),
            "tflop_row": round(run.flops["step"] / settings.batch_size / 1e12, 3),
            "finite": bool(np.isfinite(metrics["loss"])),
            "seconds": seconds,
            "flops": run.flops["step"],
        }

    return Measurement(group=group, name=name, programs={"step": program}, measure=measure, seconds=8.0)


@contextlib.contextmanager
def _in_mesh(mesh):
    with mesh_context(mesh):
        yield
