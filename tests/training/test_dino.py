"""Stage `dino`: its losses against plain oracles, its views, and a step whose teacher is the student's average."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from small_model import small_system

from ragdiff_jax.data.multi_crop import block_masks, jitter, random_crop
from ragdiff_jax.data.pipeline import PairArrays
from ragdiff_jax.data.synth_dataset import synth_record
from ragdiff_jax.errors import UserError
from ragdiff_jax.models.clip_vision import CLIPVisionModel, resampled_positions
from ragdiff_jax.parallel import make_mesh
from ragdiff_jax.training import TrainSettings
from ragdiff_jax.training.loop import train
from ragdiff_jax.training.objectives.dino import DINOObjective
from ragdiff_jax.training.objectives.dino_losses import cross_entropy, koleo, sinkhorn_targets
from ragdiff_jax.training.resident import ResidentObjective
from ragdiff_jax.training.state import along_cosine, decay_further
from ragdiff_jax.weights import load_part, save_part

VISION = small_system().structure_net.vision


class NoText:
    def encode(self, texts):
        return np.zeros((len(texts), 1), np.int32)


@pytest.fixture(scope="module")
def pairs():
    records = [synth_record(row, size=32) for row in range(8)]
    return PairArrays(records, image_size=32, tokenizer=NoText(), cache=True)


def objective(pairs, **changes):
    small = {"prototypes": 16, "hidden": 16, "bottleneck": 8, "local_views": 2, "local_size": VISION.patch_size * 2}
    return DINOObjective(pairs=pairs, vision=VISION, **small | {"separate_heads": True} | changes)


def test_sinkhorn_is_the_loop_over_rows_and_columns():
    rng = np.random.default_rng(0)
    logits = rng.uniform(-1, 1, (12, 5))
    table = np.exp(logits / 0.06)
    for _ in range(3):
        for column in range(5):
            table[:, column] /= table[:, column].sum() * 5
        for row in range(12):
            table[row] /= table[row].sum() * 12
    found = np.asarray(sinkhorn_targets(jnp.asarray(logits, jnp.float32), 0.06))
    np.testing.assert_allclose(found, table * 12, rtol=1e-4)
    # Every prototype is used alike, which is what keeps the teacher from saying one thing of all.
    alike = np.asarray(sinkhorn_targets(jnp.asarray(logits, jnp.float32), 0.3, iterations=30))
    np.testing.assert_allclose(alike.sum(axis=0), 12 / 5, rtol=1e-2)
    # Padding changes nothing, whatever it holds.
    padded = np.concatenate([logits, 50 * np.ones((3, 5))]).astype(np.float32)
    weights = jnp.asarray([1.0] * 12 + [0.0] * 3)
    again = np.asarray(sinkhorn_targets(jnp.asarray(padded), 0.06, weights))
    np.testing.assert_allclose(again[:12], found, rtol=1e-6)
    assert not again[12:].any()


def test_cross_entropy_and_koleo_are_torchs():
    rng = np.random.default_rng(1)
    targets = rng.dirichlet(np.ones(7), 5).astype(np.float32)
    logits = rng.normal(size=(5, 7)).astype(np.float32)
    ours = jax.jit(lambda *rows: cross_entropy(*rows, 0.1))(targets, logits)
    theirs = torch.nn.functional.cross_entropy(torch.tensor(logits) / 0.1, torch.tensor(targets), reduction="none")
    np.testing.assert_allclose(np.asarray(ours), theirs.numpy(), rtol=1e-5)

    x = rng.normal(size=(9, 4)).astype(np.float32)
    t = torch.tensor(x, requires_grad=True)
    unit = torch.nn.functional.normalize(t, dim=1)
    apart = torch.cdist(unit, unit) + 9 * torch.eye(9)
    nearest = apart.detach().argmin(dim=1)
    loss = -torch.log(torch.nn.functional.pairwise_distance(unit, unit[nearest], eps=0)).mean()
    loss.backward()
    slope = jax.jit(jax.value_and_grad(lambda x: koleo(x).mean()))
    value, gradient = slope(x)
    assert float(value) == pytest.approx(loss.item(), rel=1e-4)
    np.testing.assert_allclose(np.asarray(gradient), t.grad.numpy(), rtol=1e-3, atol=1e-5)
    assert np.isfinite(np.asarray(slope(np.ones((4, 3), np.float32))[1])).all()


def test_positions_are_resampled_as_torch_does():
    table = np.random.default_rng(0).normal(size=(17, 6)).astype(np.float32)
    ours = np.asarray(resampled_positions(jnp.asarray(table), 4, 2, 3))
    grid = torch.tensor(table[1:]).reshape(1, 4, 4, 6).permute(0, 3, 1, 2)
    theirs = torch.nn.functional.interpolate(grid, (2, 3), mode="bicubic", align_corners=False)
    np.testing.assert_allclose(ours[1:], theirs.permute(0, 2, 3, 1).reshape(6, 6).numpy(), atol=1e-5)
    np.testing.assert_array_equal(ours[0], table[0])


def test_a_view_is_a_part_of_its_picture():
    # Brightness is the row, so that a view tells where it was cut: its span is the share asked for.
    picture = jnp.broadcast_to(jnp.linspace(-1, 1, 64)[None, :, None, None], (32, 64, 64, 3))
    views = np.asarray(jax.jit(lambda key: random_crop(key, picture, 16, (0.2, 0.3)))(jax.random.key(0)))
    spans = (views[..., 0].max(axis=(1, 2)) - views[..., 0].min(axis=(1, 2))) / 2
    assert views.shape == (32, 16, 16, 3) and 0.3 < spans.min() < spans.max() < 0.7 and spans.std() > 0.02
    assert (np.diff(views[:, :, 0, 0], axis=1) > -1e-5).all()  # never upside down
    recolour = jax.jit(lambda key, views: jitter(key, views, blur=0.5, solarize=0.2))
    coloured = np.asarray(recolour(jax.random.key(1), views))
    assert coloured.shape == views.shape and np.isfinite(coloured).all() and (np.abs(coloured) < 1.6).all()
    changed = np.abs(coloured - views).mean(axis=(1, 2, 3)) > 1e-3
    assert 0.5 < changed.mean() <= 1


def test_masks_cover_their_share_in_blobs():
    masked, count = map(np.asarray, block_masks(jax.random.key(0), 64, 12, (0.1, 0.5)))
    np.testing.assert_array_equal(masked.sum(axis=1), count)
    assert 14 <= count.min() < 25 and 60 < count.max() <= 72
    grid = masked.reshape(64, 12, 12)
    together = (grid[:, 1:] == grid[:, :-1]).mean()
    scattered = np.random.default_rng(0).permuted(grid.reshape(64, -1), axis=1).reshape(grid.shape)
    assert together > (scattered[:, 1:] == scattered[:, :-1]).mean() + 0.15


def test_normed_tokens_are_the_towers_and_masked_patches_hide():
    model = CLIPVisionModel(VISION)
    side = VISION.image_size
    pixels = jax.random.normal(jax.random.key(0), (2, side, side, 3))
    params = jax.jit(model.init)(jax.random.key(1), pixels)
    tokens = model.apply(params, pixels, method="normed_tokens")
    np.testing.assert_allclose(tokens[:, 0], model.apply(params, pixels).pooled, atol=1e-5)
    patches = (side // VISION.patch_size) ** 2
    mask = jnp.zeros((2, patches), bool).at[:, 0].set(True)
    other = pixels.at[:, : VISION.patch_size, : VISION.patch_size].set(5.0)
    token = jnp.ones(VISION.hidden_size)
    hidden = [model.apply(params, x, mask, token, method="normed_tokens") for x in (pixels, other)]
    np.testing.assert_array_equal(*hidden)


def test_schedules_end_where_they_should():
    for step, value in ((0, 0.04), (50, 0.12), (100, 0.2), (150, 0.2)):
        assert float(along_cosine(0.04, 0.2, step, 100)) == pytest.approx(value, rel=1e-5)
    settings = TrainSettings(steps=100, batch_size=8, weight_decay=0.1, weight_decay_end=0.3)
    params = {"kernel": jnp.ones(2), "bias": jnp.ones(2)}
    updates = decay_further(settings, params, params, 100)
    assert updates["kernel"][0] == pytest.approx(1.2) and updates["bias"][0] == 1
    with pytest.raises(UserError, match="ema_end"):
        TrainSettings(steps=1, batch_size=8, ema_decay=0.9, ema_end=0.5)


def test_a_run_learns_from_its_own_average_and_exports_the_teacher(pairs, tmp_path):
    settings = TrainSettings(
        steps=3, batch_size=8, learning_rate=1e-3, ema_decay=0.9, ema_end=1.0, ema_warmup=False, log_every=1
    )
    dino = objective(pairs, layer_decay=0.5, init_from=str(tmp_path / "start"))
    start = nn.meta.unbox(jax.jit(dino.init)(jax.random.key(5)))["image_encoder"]
    save_part(tmp_path / "start", VISION.to_dict(), start)
    result = train(ResidentObjective(base=dino), tmp_path / "run", settings, make_mesh(devices=jax.devices()[:1]))
    assert result.finished
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for line in lines[:3]:
        assert line["loss"] == pytest.approx(line["dino"] + line["ibot"] + 0.1 * line["koleo"], rel=1e-5)
        # Logits are cosines over 0.1: no more than this is possible, whatever the weights.
        assert 0 < line["dino"] <= np.log(16) + 20 and 1 <= line["prototypes_used"] <= 16.001
        assert -1 <= line["alike"] <= 1
    loaded = load_part(
        result.model / "image_encoder", jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), start)
    )
    moved = jax.tree.map(lambda a, b: float(np.abs(np.asarray(a) - np.asarray(b)).max()), loaded, start)
    assert moved["visual_projection"]["kernel"] == 0  # CLIP's projection is not DINO's business
    kernel = moved["vision_model"]["encoder"]["layers"]["self_attn"]["q_proj"]["kernel"]
    # The average of a student whose steps are at most the learning rate, with (1 - 0.9) of each step in it.
    assert 0 < kernel < 1e-3
    rates = dino.rate_multipliers({"image_encoder": start, "mask_token": jnp.zeros(4)})
    assert rates["mask_token"] == pytest.approx(0.5 ** (VISION.num_hidden_layers + 1))
    rates = rates["image_encoder"]["vision_model"]
    layers = np.ravel(rates["encoder"]["layers"]["self_attn"]["q_proj"]["kernel"])
    np.testing.assert_allclose(layers, 0.5 ** np.arange(VISION.num_hidden_layers, 0, -1))
    assert rates["embeddings"]["patch_embedding"]["kernel"] == pytest.approx(
        0.2 * 0.5 ** (VISION.num_hidden_layers + 1)
    )


def test_a_collapsed_tower_is_seen(pairs):
    """Whose tokens are all one: Sinkhorn's targets still use every prototype, the cosine says it."""
    dino = objective(PairArrays([pairs.source[row % 8] for row in range(32)], image_size=32, tokenizer=NoText()))
    params = nn.meta.unbox(jax.jit(dino.init)(jax.random.key(5)))
    seen = dino.validation(params, {}, None)
    norm = params["image_encoder"]["vision_model"]["post_layernorm"]
    norm["scale"], norm["bias"] = jnp.zeros_like(norm["scale"]), jnp.ones_like(norm["bias"])
    collapsed = dino.validation(params, {}, None)
    assert collapsed["alike"] == pytest.approx(1, abs=1e-5) and seen["alike"] < 0.9999
    assert seen["nearest_iou"] > seen["random_iou"] and 0 < seen["random_category"] < 1


def test_what_cannot_be_trained_is_named(pairs, tmp_path):
    settings = TrainSettings(steps=1, batch_size=8)
    with pytest.raises(UserError, match="its own average"):
        train(objective(pairs), tmp_path / "run", settings, mesh=make_mesh(devices=jax.devices()[:1]))
    with pytest.raises(UserError, match="local_size"):
        objective(pairs, local_size=VISION.patch_size + 1)
