"""What RAGDiffusion tells its networks, and what its loss is made of. No network runs, so that every number shows."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_model import small_system

import ragdiff_jax as rd
from ragdiff_jax.diffusion import NoiseSchedule, ddim, named_sampler
from ragdiff_jax.diffusion.loss import min_snr_weights
from ragdiff_jax.retrieval.device_memory import place
from ragdiff_jax.systems.conditions import Conditions
from ragdiff_jax.systems.encodings import noise_with_offset

MODEL = small_system()
D, SIDE = MODEL.structure_net.embed_dim, MODEL.image_size


class Told(rd.RAGDiffusion):
    """Its networks keep what they were told in `params`; text encoder k answers k."""

    def _apply(self, params, part, *arguments, **named):
        params[part] = arguments
        if part.startswith("text_encoder"):
            number = float(part.endswith("2"))
            states = jnp.full((1, 77, 32), number)
            return types.SimpleNamespace(penultimate=states, text_embeds=jnp.full((1, 32), number))
        return {} if part == "reference_net" else arguments[0]


def told(kind=Told, **changes):
    return kind(**{field.name: getattr(MODEL, field.name) for field in dataclasses.fields(MODEL)} | changes)


def test_sdxls_sizes_are_original_crop_and_target():
    np.testing.assert_array_equal(MODEL.time_ids(2, 48, 32), [[48, 32, 0, 0, 48, 32]] * 2)


def test_text_encoders_stand_in_order_and_the_last_one_pools():
    encoder = MODEL.text_encoders[0]
    unet = dataclasses.replace(MODEL.unet, cross_attention_dim=64)
    text = told(text_encoders=(encoder, encoder), unet=unet).encode_text({}, jnp.zeros((1, 77), jnp.int32))
    np.testing.assert_array_equal(text.context[0, 0], [0.0] * 32 + [1.0] * 32)
    np.testing.assert_array_equal(text.pooled, np.ones((1, 32)))


def test_reference_net_sees_clean_latents_and_no_text():
    seen = {}
    told().reference(seen, jnp.ones((2, MODEL.latent_size, MODEL.latent_size, MODEL.unet.in_channels)))
    _, timesteps, context, pooled, sizes = seen["reference_net"]
    assert context is None and not timesteps.any() and not pooled.any()
    np.testing.assert_array_equal(sizes, MODEL.time_ids(2, SIDE, SIDE))


@pytest.mark.parametrize(
    "name, expected",
    [("text", (1, 0, 0)), ("structure", (0, 1, 0)), ("reference", (0, 0, 1)), ("everything", (1, 1, 1))],
)
def test_each_chance_takes_its_own_condition(name, expected):
    taken = []

    class Seen(Told):
        def embed(self, *_):
            return jnp.ones((1, D)) / D**0.5

        def encode(self, *_):
            return jnp.zeros((1, self.latent_size, self.latent_size, 4))

        def reference(self, params, latents):
            return latents

        def encode_text(self, params, ids):
            return rd.Text(ids, None)

        def denoising_loss(self, params, conditions, *_):
            taken.append(conditions)
            return jnp.zeros(1)

    chances = dict.fromkeys(("text", "structure", "reference", "everything", "landmark"), 0.0) | {name: 1.0}
    landmarks = np.random.default_rng(0).random((8, SIDE, SIDE)) < 0.5
    picture = jnp.zeros((1, SIDE, SIDE, 3))
    batch = {
        "photo": picture,
        "flat": picture,
        "mask": jnp.ones((1, SIDE, SIDE, 1)),
        "photo_attributes": jnp.zeros((1, 10), jnp.int32),
        "text_ids": jnp.ones((1, 8), jnp.int32),
        "memory_row": jnp.array([-1]),
    }
    memory = place(np.eye(8, D, dtype=np.float32), landmarks)
    model = told(Seen, dropout=rd.Dropout(**chances))
    model.loss({}, batch, jax.random.key(0), memory=memory, empty_ids=jnp.zeros(8, jnp.int32))
    (found,) = taken
    gates = found.gates
    gone = (not found.text.context.any(), 1 - int(gates.adapter[0]), 1 - int(gates.reference[0]))
    assert tuple(map(int, gone)) == expected


def test_min_snr_weights_the_loss_of_each_time():
    class Zero(rd.RAGDiffusion):
        def denoise(self, params, conditions, latents, timesteps):
            return jnp.zeros_like(latents)

    none = Conditions(text=None, landmark_features=None, reference=None, adapter=None, gates=None)
    latents, times, key = jnp.ones((3, 4, 4, 2)), jnp.array([10, 500, 900]), jax.random.key(0)
    plain, weighted = (
        told(Zero, snr_gamma=gamma).denoising_loss({}, none, latents, key, key, times) for gamma in (0.0, 5.0)
    )
    np.testing.assert_allclose(weighted / plain, min_snr_weights(MODEL.schedule, times, 5.0), rtol=1e-5)


def test_an_offset_moves_a_channel_as_a_whole():
    plain, moved = (noise_with_offset(jax.random.key(0), (4000, 3, 3, 2), offset) for offset in (0.0, 0.5))
    gone = np.asarray(moved - plain)
    np.testing.assert_allclose(gone, np.broadcast_to(gone[:, :1, :1], gone.shape), atol=1e-6)
    assert abs(gone[:, 0, 0].std() - 0.5) < 0.02 and abs(np.corrcoef(gone[:, 0, 0].T)[0, 1]) < 0.05


def test_samplers_are_what_their_names_say():
    schedule = NoiseSchedule()
    for name, same in (("ddim", ddim(schedule, 4)), ("ddpm", ddim(schedule, 4, eta=1.0))):
        jax.tree.map(np.testing.assert_array_equal, named_sampler(name, schedule, 4), same)
    assert named_sampler("ddpm", schedule, 4).stochastic
