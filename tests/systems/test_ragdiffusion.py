"""The system put together: absent is absent, cached is what would be computed, nobody is his own neighbour."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from quick import quick_jit
from small_model import random_params, small_system

import ragdiff_jax as rd
from ragdiff_jax.data.attributes import ATTRIBUTE_SIZES
from ragdiff_jax.retrieval.device_memory import place
from ragdiff_jax.systems import presets

MODEL = small_system()
B, K, SIZE, D = 2, MODEL.neighbours, MODEL.image_size, MODEL.structure_net.embed_dim


def uniform(seed, *shape):
    return jax.random.uniform(jax.random.key(seed), shape, minval=-1, maxval=1)


def unit(seed, *shape):
    x = jax.random.normal(jax.random.key(seed), shape)
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def relative_error(ours, theirs):
    return float(jnp.abs(ours - theirs).max() / jnp.abs(theirs).max())


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def differ(a, b):
    return any(bool((x != y).any()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(jnp.asarray, random_params(MODEL))


@pytest.fixture(scope="module")
def retrieved():
    """Arguments of `condition` after the parameters: photo, embedding, neighbours, weights, landmarks."""
    landmarks = jax.random.bernoulli(jax.random.key(4), 0.5, (B, K, SIZE, SIZE))
    weights = jnp.array([[0.7, 0.2, 0.2, -0.1], [0.1, 0.4, 0.3, 0.2]])
    return uniform(0, B, SIZE, SIZE, 3), unit(1, B, D), unit(2, B, K, D), weights, landmarks


@pytest.fixture(scope="module")
def texts(params):
    """(prompts, the empty one), encoded."""
    ids = jnp.full((B + 1, 77), MODEL.text_encoders[0].eos_token_id).at[:, 0].set(766).at[:2, 1:4].set(jnp.arange(3))
    both = quick_jit(MODEL.encode_text)(params, ids)
    return jax.tree.map(lambda x: x[:2], both), jax.tree.map(lambda x: x[2:], both)


@pytest.fixture(scope="module")
def picked(params, retrieved, texts):
    """(conditions as they come, with the fused landmark by hand, with another neighbour's landmark)."""
    landmarks = retrieved[-1]
    fused, choice = rd.fuse_landmarks(landmarks, retrieved[-2])
    other = landmarks[jnp.arange(B), (choice + 1) % K]

    @quick_jit
    def run(params, retrieved, text, *picks):
        return [MODEL.condition(params, *retrieved, text, landmark=pick) for pick in (None, *picks)]

    return run(params, retrieved, texts[0], fused, other)


@pytest.fixture(scope="module")
def conditions(picked):
    return picked[0]


@pytest.fixture(scope="module")
def denoise():
    return quick_jit(MODEL.denoise)


NO_DROPOUT = rd.Dropout(text=0.0, structure=0.0, everything=0.0, reference=0.0, retrieved_landmark=1.0)
LATENTS = jax.random.normal(jax.random.key(7), (B, MODEL.latent_size, MODEL.latent_size, MODEL.unet.in_channels))
TIMES = jnp.array([10, 900])


def test_all_gates_zero_is_the_plain_unet(params, conditions, denoise):
    nothing = jnp.zeros(B)
    closed = dataclasses.replace(
        conditions,
        gates=rd.Gates(reference=nothing, adapter=nothing),
        landmark_features=conditions.landmark_features * nothing[:, None, None, None],
    )
    text, ids = conditions.text, MODEL.time_ids(B, SIZE, SIZE)
    plain = quick_jit(
        lambda p, text: MODEL.modules()["unet"].apply({"params": p}, LATENTS, TIMES, text.context, text.pooled, ids)
    )(params["unet"], text)
    assert relative_error(denoise(params, closed, LATENTS, TIMES), plain) <= 2e-6
    assert relative_error(denoise(params, conditions, LATENTS, TIMES), plain) > 1e-3


def test_cached_reference_is_what_each_step_would_compute(params, conditions, retrieved):
    """The whole sampling, once with ReferenceNet's keys and values made before and once with them made in each step."""
    schedule = rd.ddim(MODEL.schedule, 4)
    photo_latents = quick_jit(MODEL.encode)(params, retrieved[0])

    def cached(params, conditions, photo_latents):
        conditions = dataclasses.replace(conditions, reference=MODEL.reference(params, photo_latents))
        return rd.sample(functools.partial(MODEL.denoise, params, conditions), schedule, LATENTS)

    def recomputed(params, conditions, photo_latents):
        def step(latents, t):
            # Zero, but the compiler can't know, and so it can't move ReferenceNet out of the loop.
            hold = (t[0] < 0).astype(jnp.float32)
            own = dataclasses.replace(conditions, reference=MODEL.reference(params, photo_latents + hold))
            return MODEL.denoise(params, own, latents, t)

        return rd.sample(step, schedule, LATENTS)

    assert_equal(
        quick_jit(cached)(params, conditions, photo_latents), quick_jit(recomputed)(params, conditions, photo_latents)
    )


def test_condition_mixes_the_neighbours_into_the_structure_by_alpha(params, retrieved, texts, conditions):
    photo, embedding, neighbours, weights, _ = retrieved
    rebuilt = jnp.einsum("bk,bkd->bd", weights, neighbours)
    adapter = quick_jit(lambda p, e: MODEL.modules()["ep_adapter"].apply({"params": p["ep_adapter"]}, e))
    for alpha in (0.0, MODEL.alpha, 1.0):
        model = dataclasses.replace(MODEL, alpha=alpha)
        mixed = model.fuse(embedding, neighbours, weights)
        np.testing.assert_allclose(mixed, alpha * rebuilt + (1 - alpha) * embedding, atol=1e-6)
    mixed = MODEL.alpha * rebuilt + (1 - MODEL.alpha) * embedding
    for ours, theirs in zip(jax.tree.leaves(conditions.adapter), jax.tree.leaves(adapter(params, mixed)), strict=True):
        assert relative_error(ours, theirs) <= 1e-5


def test_a_picked_landmark_changes_the_landmark_alone(picked):
    as_it_comes, fused, other = picked
    assert differ(other.landmark_features, as_it_comes.landmark_features)
    for name in ("text", "reference", "adapter", "gates"):
        assert_equal(getattr(other, name), getattr(as_it_comes, name))
    assert relative_error(fused.landmark_features, as_it_comes.landmark_features) <= 1e-6


class Bare(rd.RAGDiffusion):
    """Networks that hand out what they are given: no computation between the words of a method and the test."""

    def _apply(self, params, part, *arguments, **_):
        return arguments[0]

    def reference(self, params, photo_latents):
        return photo_latents


def bare(kind=Bare, **changes):
    fields = {field.name: getattr(MODEL, field.name) for field in dataclasses.fields(MODEL)}
    return kind(**fields | changes)


def test_null_zero_feeds_zeros_where_null_gate_takes_away(texts):
    photo_latents, structure, gate = jnp.ones_like(LATENTS), unit(1, B, D), jnp.array([0.0, 1.0])
    common = {"photo_latents": photo_latents, "structure": structure, "text": texts[0]}
    common |= {"silhouette": jnp.ones((B, SIZE, SIZE, 1)), "gates": rd.Gates(reference=gate, adapter=gate)}
    gated, zeroed = (bare(null=null).make_conditions({}, **common) for null in ("gate", "zero"))
    assert_equal(gated.gates, rd.Gates(reference=gate, adapter=gate))
    assert_equal((gated.reference, gated.adapter), (photo_latents, structure))
    assert_equal(zeroed.gates, rd.Gates(reference=jnp.ones(B), adapter=jnp.ones(B)))
    for name, whole in (("reference", photo_latents), ("adapter", structure)):
        assert not getattr(zeroed, name)[0].any()
        np.testing.assert_array_equal(getattr(zeroed, name)[1], whole[1])


def test_unconditional_half_keeps_the_landmark_and_nothing_else(conditions, texts):
    empty = texts[1]
    other = conditions.with_closed_gates(empty)
    assert jax.tree.structure(other) == jax.tree.structure(conditions)
    assert_equal(other.landmark_features, conditions.landmark_features)
    for gate in jax.tree.leaves(other.gates):
        assert gate.shape == (B,) and not gate.any()
    for row in range(B):
        np.testing.assert_array_equal(other.text.context[row], empty.context[0])
        np.testing.assert_array_equal(other.text.pooled[row], empty.pooled[0])


class InTraining:
    """What MainNet is told in a training step: (structure, landmark) of one sample whose embedding is `own`."""

    def __init__(self, dropout=NO_DROPOUT):
        self.own, self.others = np.array(unit(1, 1, D)), np.array(unit(3, K + 1, D))
        self.landmarks = np.array(jax.random.bernoulli(jax.random.key(4), 0.5, (K + 2, SIZE, SIZE)))
        taken = self.taken = []
        own = jnp.asarray(self.own)

        class Seen(Bare):
            def embed(self, *_):
                return own

            def encode(self, params, image, key=None):
                return LATENTS[:1]

            def encode_text(self, params, ids):
                return rd.Text(None, None)

            def denoising_loss(self, params, conditions, *_):
                taken.append((conditions.adapter, conditions.landmark_features))
                return jnp.zeros(1)

        self.model = bare(Seen, dropout=dropout)

    def __call__(self, first, row):
        """With `first` in the memory's row 0 and `row` as the sample's own."""
        memory = place(np.concatenate([first, self.others]), self.landmarks)
        batch = {
            "photo": jnp.zeros((1, SIZE, SIZE, 3)),
            "flat": jnp.zeros((1, SIZE, SIZE, 3)),
            "mask": jnp.ones((1, SIZE, SIZE, 1)),
            "photo_attributes": jnp.zeros((1, len(ATTRIBUTE_SIZES)), jnp.int32),
            "text_ids": jnp.zeros((1, 8), jnp.int32),
            "memory_row": jnp.array([row]),
        }

        @quick_jit
        def told(batch, memory):
            self.model.loss({}, batch, jax.random.key(9), memory=memory, empty_ids=jnp.zeros(8, jnp.int32))
            return self.taken.pop()

        return told(batch, memory)


def test_a_samples_own_flat_lay_is_not_among_its_neighbours():
    """The memory's row 0 is the sample's own: training sees what it would see if row 0 were out of reach."""
    seen = InTraining()
    excluded, out_of_reach, found = seen(seen.own, 0), seen(-seen.own, -1), seen(seen.own, -1)
    assert_equal(excluded, out_of_reach)
    np.testing.assert_allclose(found[0], seen.own, atol=1e-2)  # SLLE takes the neighbour that is the query itself
    assert differ(excluded, found)


def test_the_landmark_of_training_is_the_truth_where_the_retrieved_one_is_of_another_shape():
    """The truth fills the frame, what is retrieved half of it."""
    truth = np.ones((1, SIZE, SIZE, 1), np.float32)
    for least, believed in ((0.0, True), (0.3, True), (0.7, False)):
        seen = InTraining(dataclasses.replace(NO_DROPOUT, retrieved_iou=least))
        landmark = np.asarray(seen(seen.own, 0)[1])
        assert np.array_equal(landmark, truth) != believed
        assert 0.3 < landmark.mean() < 0.7 or not believed


def test_a_dropped_landmark_leaves_no_features():
    seen = InTraining(dataclasses.replace(NO_DROPOUT, landmark=1.0))
    assert not np.asarray(seen(seen.own, 0)[1]).any()


def test_adapters_start_as_copies_of_mainnet(params):
    reference = rd.reference_from_unet(params["reference_net"], params["unet"])
    adapter = rd.adapter_from_unet(params["ep_adapter"], params["unet"], MODEL.unet)
    for part, tree in (("reference_net", reference), ("ep_adapter", adapter)):
        assert jax.tree.map(jnp.shape, tree) == jax.tree.map(jnp.shape, params[part])
    assert_equal(reference["conv_in"], params["unet"]["conv_in"])
    assert_equal(reference["mid_block"]["resnets_0"], params["unet"]["mid_block"]["resnets_0"])
    for site, *_ in MODEL.unet.sites():
        block, name = site.split("/")
        theirs = params["unet"][block][name]["transformer_blocks"]["attn2"]
        ours = adapter[site.replace("/", "_")]
        np.testing.assert_array_equal(ours["to_k"], theirs["to_k"]["kernel"])
        np.testing.assert_array_equal(ours["to_v"], theirs["to_v"]["kernel"])
    # Both trees may be donated: no buffer is shared.
    taken = {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(params["unet"])}
    copies = jax.tree.leaves(reference) + [
        leaf for name, site in adapter.items() if name != "resampler" for leaf in jax.tree.leaves(site)
    ]
    assert not taken & {leaf.unsafe_buffer_pointer() for leaf in copies}


def test_attribute_sizes_are_those_of_the_data():
    assert presets.ATTRIBUTE_SIZES == ATTRIBUTE_SIZES


def test_the_papers_sizes_fit_together():
    model = rd.RAGDiffusion.from_config("sdxl_flux", guidance_scale=3.0)
    assert model.guidance_scale == 3.0 and model.latent_size == 96
    parts = ("unet", "ep_adapter", "landmark_guider", "structure_net")
    abstract = jax.eval_shape(functools.partial(model.init, parts=parts), jax.random.key(0))
    shapes = jax.tree.map(jnp.shape, nn.meta.unbox(abstract))
    assert shapes["unet"]["conv_in"]["kernel"] == (3, 3, 16, 320)
    assert shapes["unet"]["conv_out"]["kernel"] == (3, 3, 320, 16)
    blocks = shapes["unet"]["mid_block"]["attentions_0"]["transformer_blocks"]
    assert blocks["attn2"]["to_k"]["kernel"] == (10, 2048, 1280)
    assert shapes["ep_adapter"]["mid_block_attentions_0"]["to_k"] == (10, 2048, 1280)
    assert shapes["ep_adapter"]["resampler"]["latents"] == (1, 16, 1280)
    assert shapes["landmark_guider"]["conv_out"]["kernel"] == (3, 3, 128, 320)
    # 768 of the picture's tokens and 10 attributes of 32.
    assert shapes["structure_net"]["photo"]["resampler"]["proj_in"]["kernel"] == (768 + 320, 768)
    assert len(model.text_encoders) == 2 and not model.vae.use_quant_conv
    with pytest.raises(rd.UserError, match="sdxl_fluxx"):
        rd.RAGDiffusion.from_config("sdxl_fluxx")


def test_each_text_encoder_sees_its_own_tokenizers_padding(params):
    """One vocabulary, two paddings (SDXL): training has the first one's ids, serving has both."""
    encoder = MODEL.text_encoders[0]
    width = 2 * MODEL.unet.cross_attention_dim
    both = dataclasses.replace(
        MODEL,
        text_encoders=(encoder, encoder),
        unet=dataclasses.replace(MODEL.unet, cross_attention_dim=width),
        text_pads=(encoder.eos_token_id, 0),
    )
    two = params | {"text_encoder_2": params["text_encoder"]}
    ids = jnp.full((2, 77), encoder.eos_token_id).at[:, 0].set(766).at[0, 1:4].set(jnp.arange(3, 6))
    second = ids.at[0, 5:].set(0).at[1, 2:].set(0)
    plain = dataclasses.replace(both, text_pads=())

    @quick_jit
    def encoded(two, ids, second):
        return both.encode_text(two, (ids, second)), both.encode_text(two, ids), plain.encode_text(two, ids)

    served, trained, alike = encoded(two, ids, second)
    assert_equal(trained, served)
    assert differ(alike.context[:, 5:], served.context[:, 5:])  # what the second would see in training without it
    with pytest.raises(rd.UserError, match="1 text_pads for 2 text encoders"):
        dataclasses.replace(both, text_pads=(0,))


@pytest.mark.parametrize(
    "part, change, word",
    [
        ("unet", {"cross_attention_dim": 48}, "text encoders' widths"),
        ("unet", {"text_embed_dim": 48}, "pooled text"),
        ("unet", {"in_channels": 16}, "latent channels"),
        ("landmark_guider", {"features": 32}, "landmark guider's features"),
        ("landmark_guider", {"strides": (2, 2, 2, 2)}, "strides"),
        ("ep_adapter", {"embed_dim": 64}, "embed_dim"),
    ],
)
def test_parts_that_do_not_fit_are_refused(part, change, word):
    with pytest.raises(rd.UserError, match=word):
        dataclasses.replace(MODEL, **{part: dataclasses.replace(getattr(MODEL, part), **change)})


def _equations(jaxpr, loops=()):
    """(primitive's name, lengths of the scans around it, equation) of everything in a jaxpr."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name, loops, equation
        inner = (*loops, equation.params["length"]) if equation.primitive.name == "scan" else loops
        for value in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "jaxpr") or hasattr(x, "eqns")):
            if hasattr(value, "jaxpr") or hasattr(value, "eqns"):
                yield from _equations(getattr(value, "jaxpr", value), inner)


def test_sampling_is_one_scan_with_the_unet_in_it_once(params, conditions, texts):
    def run(params, conditions, empty, noise):
        denoise = rd.guided(
            functools.partial(MODEL.denoise, params),
            conditions,
            MODEL.unconditional(params, conditions, empty),
            2.0,
        )
        return rd.sample(denoise, rd.ddim(MODEL.schedule, 7), noise)

    found = list(_equations(jax.make_jaxpr(run)(params, conditions, texts[1], LATENTS).jaxpr))
    outermost = [equation for name, loops, equation in found if name in ("scan", "while") and not loops]
    assert [equation.params["length"] for equation in outermost] == [7]
    convolutions = [loops for name, loops, _ in found if name == "conv_general_dilated"]
    assert convolutions and all(loops[:1] == (7,) for loops in convolutions)
    # Both halves of guidance go through the network together.
    first = next(e for name, _, e in found if name == "conv_general_dilated")
    assert first.invars[0].aval.shape == (2 * B, *LATENTS.shape[1:])
