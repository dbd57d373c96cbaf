"""Single layers at the shapes that they have in the network: matrix peak, attention, convolutions, linears.

Each program runs its layer `inner` times, every time on the result of the last: the clock sees the layer and not the
launch of a program.
"""

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

from gpu_parts.program import Measurement, Program, Run
from ragdiff_jax.models.attention import dot_product_attention, reference_attention
from ragdiff_jax.systems.ragdiffusion import RAGDiffusion

S = jax.ShapeDtypeStruct
TEXT_TOKENS = 77


def _chain(layer: Callable, inner: int) -> Callable:
    def run(x, *rest):
        return jax.lax.scan(lambda carry, _: (layer(carry, *rest).astype(x.dtype), None), x, length=inner)[0]

    return run


def _one(group: str, name: str, layer, arguments, inner: int, counted=None) -> Measurement:
    """A record of ms a layer and TFLOP/s."""
    program = Program(
        function=jax.jit(_chain(layer, inner)), arguments=arguments, counted=_chain(counted or layer, inner)
    )

    def measure(run: Run):
        arrays = run.arrays("layer")
        seconds = run.seconds(lambda: run.compiled["layer"](*arrays)) / inner
        return {"ms": round(1e3 * seconds, 4), "seconds": seconds, "flops": run.flops["layer"] / inner}

    return Measurement(group=group, name=name, programs={"layer": program}, measure=measure, seconds=1.0)


def peak(size: int, dtype, inner: int) -> Iterator[Measurement]:
    """The square product whose speed the others are compared with, and the speed of a copy."""
    shape = S((size, size), dtype)
    yield _one("peak", f"product {size}", lambda x, w: x @ w, (shape, shape), inner)
    copy = _one("peak", "copy", lambda x: x + 1, (S((4 * size, 4 * size), dtype),), inner)
    moved = 2 * (4 * size) ** 2 * jnp.dtype(dtype).itemsize

    def measure(run: Run):
        seconds = copy.measure(run)["seconds"]
        return {"ms": round(1e3 * seconds, 4), "gb_s": round(moved / seconds / 1e9, 1)}

    yield Measurement(group="peak", name="copy", programs=copy.programs, measure=measure, seconds=1.0)


def attention(model: RAGDiffusion, batch: int, implementations, inner: int) -> Iterator[Measurement]:
    """Self-attention, with ReferenceNet's keys and without, and the text's, at each level that has them.

    Every second sample's gate is closed, as in the two halves of guidance.
    """
    for tokens, width, heads in _levels(model):
        q = S((batch, tokens, heads, width // heads), model.dtype)
        text = S((batch, TEXT_TOKENS, heads, width // heads), model.dtype)
        gates = (jnp.arange(batch) % 2 == 0).astype(jnp.float32)

        def referenced(q, k, v, rk, rv, implementation, gates=gates):
            return reference_attention(q, k, v, rk, rv, gates, implementation=implementation)

        for name, layer, arguments in (
            ("self", dot_product_attention, (q, q, q)),
            ("reference", referenced, (q, q, q, q, q)),
            ("text", dot_product_attention, (q, text, text)),
        ):
            for implementation in implementations if name != "text" else ("xla",):
                yield _one(
                    "attention",
                    f"{name} {batch}x{tokens} {heads} heads {implementation}",
                    functools.partial(layer, implementation=implementation),
                    arguments,
                    inner,
                    functools.partial(layer, implementation="xla"),
                )


def convolution(model: RAGDiffusion, batch: int, inner: int) -> Iterator[Measurement]:
    """3x3 convolutions, NHWC: a resnet's of each level, the widest of the way up, and two of the decoder."""
    widths, side = model.unet.block_out_channels, model.latent_size
    shapes = [(batch, side >> level, width, width) for level, width in enumerate(widths)]
    shapes.append((batch, side >> (len(widths) - 1), 2 * widths[-1], widths[-1]))
    vae = model.vae.block_out_channels
    shapes += [(1, model.image_size, vae[0], vae[0]), (1, model.image_size >> 1, vae[1], vae[1])]
    for rows, pixels, into, of in shapes:
        repeat = into // of

        def layer(x, kernel, repeat=repeat):
            x = jnp.concatenate([x] * repeat, axis=-1) if repeat > 1 else x
            numbers = ("NHWC", "HWIO", "NHWC")
            return jax.lax.conv_general_dilated(x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=numbers)

        arguments = (S((rows, pixels, pixels, of), model.dtype), S((3, 3, into, of), model.dtype))
        yield _one("convolution", f"3x3 {rows}x{pixels}x{pixels} {into}->{of}", layer, arguments, inner)


def linear(model: RAGDiffusion, batch: int, inner: int) -> Iterator[Measurement]:
    """A projection of attention and the whole GEGLU feed-forward of each level."""

    def feed_forward(x, up, down):
        value, gate = jnp.split(x @ up, 2, axis=-1)
        return (value * jax.nn.gelu(gate, approximate=False)) @ down

    for tokens, width, _ in _levels(model):
        x = S((batch * tokens, width), model.dtype)
        square, up, down = (S(shape, model.dtype) for shape in ((width,) * 2, (width, 8 * width), (4 * width, width)))
        yield _one("linear", f"projection {batch * tokens}x{width}", lambda x, w: x @ w, (x, square), inner)
        yield _one("linear", f"GEGLU {batch * tokens}x{width}", feed_forward, (x, up, down), inner)


def _levels(model: RAGDiffusion) -> Iterator[tuple[int, int, int]]:
    """(tokens, width, heads) of each level with transformers."""
    unet = model.unet
    for level, width in enumerate(unet.block_out_channels):
        if unet.down_attention[level]:
            yield (model.latent_size >> level) ** 2, width, unet.attention_heads[level]
