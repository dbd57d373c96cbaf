"""What is measured of the trained stages; a function a figure, each gives one JSON object."""

import functools

import jax
import numpy as np

from benchmarks.pgea.stages import Stages
from ragdiff_jax.cli.train import apply_settings, fill_train, read_config
from ragdiff_jax.data.images import save_image
from ragdiff_jax.data.pixels import to_uint8
from ragdiff_jax.evaluation.bootstrap import Interval, difference_interval, mean_interval
from ragdiff_jax.evaluation.claims.trained import logo_boxes, through_autoencoder
from ragdiff_jax.evaluation.kid import RANDOM_KID, kid_of_pairs
from ragdiff_jax.evaluation.logo import edge_correlation, psnr
from ragdiff_jax.evaluation.random_features import random_feature_extractor
from ragdiff_jax.parallel import unboxed
from ragdiff_jax.training.from_config import make_objective
from ragdiff_jax.training.least_squares import as_matrix
from ragdiff_jax.training.objectives.latent_change import (
    carried_conv_in,
    conv_in_error,
    nearest_isometry,
    noise_error,
)
from ragdiff_jax.training.objectives.pgea_conv_in import sum_pictures
from ragdiff_jax.weights.folder import load_part

SIZE, BATCH, SEED = 64, 32, 0
UNSEEN = 101  # the seed of garments that no data set of these trainings holds
SHOWN = 12


def number(interval: Interval, digits: int = 4) -> list[float]:
    """[estimate, low, high]."""
    return [round(x, digits) for x in (interval.estimate, interval.low, interval.high)]


def objective_of(stages: Stages, stage: str):
    """(the stage's objective, its parameters as the stage begins)."""
    config, settings = stages.settings(stage)
    config = read_config(f"configs/{config}")
    fill_train(config)
    places = {"data.folder": stages.data, "data.decoded": stages.decoded}
    apply_settings(config, [f"{name}={value}" for name, value in (settings | places).items()])
    objective = make_objective(config)
    params = jax.jit(lambda key: unboxed(objective.init(key)))(jax.random.key(SEED))
    return objective, objective.restore_parts(params)


def unet_of(stages: Stages, stage: str, objective):
    """A stage's U-Net, for the channels of the objective's system."""
    abstract = jax.eval_shape(lambda key: objective.model.init(key, ["unet"]), jax.random.key(0))
    return load_part(stages.part(stage), abstract["unet"])


def batches_of(pairs, count: int) -> list:
    """The first `count` pairs, in whole batches."""
    return [pairs.batch(np.arange(i, i + BATCH)) for i in range(0, min(count, len(pairs)) // BATCH * BATCH, BATCH)]


def reconstructions(stages: Stages, stage: str, pictures: np.ndarray) -> np.ndarray:
    """uint8 pictures through a stage's autoencoder, by the posterior's mean."""
    return through_autoencoder(stages.part(stage, "vae"), pictures)


def logos(stages: Stages, count: int) -> dict:
    """Reconstruction inside the logo's box, 4 against 16 channels; asked: 3 dB."""
    pictures, boxes = logo_boxes(count, SIZE, UNSEEN)
    found, shown = {}, [pictures[:SHOWN]]
    for channels in (4, 16):
        again = reconstructions(stages, f"autoencoder{channels}", pictures)
        shown.append(again[:SHOWN])
        found[channels] = {
            "psnr": np.array([psnr(*each) for each in zip(pictures, again, boxes, strict=True)]),
            "edges": np.array([edge_correlation(*each) for each in zip(pictures, again, boxes, strict=True)]),
        }
    save_image(stages.work / "logos.png", np.concatenate([np.concatenate(list(row), axis=1) for row in shown]))
    report = {"logos": len(boxes)}
    for name, digits in (("psnr", 2), ("edges", 3)):
        a, b = found[4][name], found[16][name]
        report |= {
            f"{name}_4": number(mean_interval(a, seed=SEED), digits),
            f"{name}_16": number(mean_interval(b, seed=SEED), digits),
            f"{name}_16 - 4": number(difference_interval(b, a, seed=SEED), digits),
        }
    return report


def residuals(stages: Stages, count: int) -> dict:
    """The expected squared error of conv_in's features by the closed form and by gradient steps, one measure for both.

    Of the features' mean square; on pairs of the training set and on held-out ones. Lower is better.
    """
    objective, params = objective_of(stages, "stage1")
    old, side, moments = params["unet"]["conv_in"], objective.model.latent_size, objective.moments
    report = {}
    for split, pairs in (("train", objective.pairs), ("held_out", objective.held_out)):
        gram = sum_pictures(objective, params, batches_of(pairs, count))
        isometry = nearest_isometry(gram, objective.model.vae.latent_channels, objective.old_vae.latent_channels)
        carried = carried_conv_in(old, isometry)

        def error(matrix, gram=gram, carried=carried):
            noise = noise_error(matrix, carried, moments, side=side)
            return conv_in_error(gram, matrix, old, moments) + float(noise)

        power = error(np.zeros_like(carried))
        for stage in ("stage1", "stage1_sgd"):
            matrix = as_matrix(jax.tree.map(np.asarray, unet_of(stages, stage, objective)["conv_in"]))
            report[f"{stage}_{split}"] = float(f"{error(matrix) / power:.5g}")
    return report


def starts(stages: Stages, count: int) -> dict:
    """The text-to-image loss that stage II begins with, held-out pairs, the same times and noise for all.

    closed, sgd: conv_in by the closed form or by gradient steps, conv_out carried over; `+ out`: conv_out by least
    squares behind it; random: both drawn as a new U-Net's.
    """
    objective, params = objective_of(stages, "stage2")
    fresh = jax.jit(lambda key: unboxed(objective.model.init(key, ["unet"])))(jax.random.key(SEED))["unet"]
    unets = {
        "closed": unet_of(stages, "stage1", objective),
        "closed + out": unet_of(stages, "out", objective),
        "sgd": unet_of(stages, "stage1_sgd", objective),
        "sgd + out": unet_of(stages, "out_sgd", objective),
        "random": params["unet"] | {name: fresh[name] for name in ("conv_in", "conv_out")},
    }
    loss = jax.jit(objective.denoising_loss)
    times, rows = objective.model.schedule.num_train_timesteps, {}
    for name, unet in unets.items():
        found = []
        for start, batch in zip(range(0, count, BATCH), batches_of(objective.held_out, count), strict=False):
            # Evenly over all times, another start in each batch.
            t = (np.arange(BATCH) * times // BATCH + start * 7) % times
            found.append(np.asarray(loss(params | {"unet": unet}, batch, jax.random.key(start), t.astype(np.int32))))
        rows[name] = np.concatenate(found)
    report = {name: number(mean_interval(values, seed=SEED)) for name, values in rows.items()}
    for a, b in (("closed", "sgd"), ("closed", "random"), ("closed + out", "sgd + out"), ("closed + out", "closed")):
        report[f"({a}) - ({b})"] = number(difference_interval(rows[a], rows[b], seed=SEED), 5)
    return report


def kid(stages: Stages, count: int) -> dict:
    """Flat-lays from held-out captions on 16 channels (stage III) and on 4 (the stem, trained as long), KID of each.

    Beside them the autoencoders' own reconstructions: what no U-Net can be better than.
    """
    features, pictures = random_feature_extractor(), {}
    for name, stage in (("4", "more"), ("16", "stage3")):
        objective, params = objective_of(stages, stage)
        params = params | {"unet": unet_of(stages, stage, objective)}
        draw, batches = jax.jit(objective.generate), batches_of(objective.held_out, count)
        found = [to_uint8(draw(params, {}, batch, jax.random.key(i))) for i, batch in enumerate(batches)]
        pictures[name] = np.concatenate([np.asarray(one) for one in found])
    real = np.concatenate([batch["flat"] for batch in batches])
    for channels in ("4", "16"):
        pictures[f"autoencoder {channels}"] = reconstructions(stages, f"autoencoder{channels}", real)
    rows = {name: kid_of_pairs(features(real), features(fake)) for name, fake in pictures.items()}
    shown = [real[:SHOWN], pictures["4"][:SHOWN], pictures["16"][:SHOWN]]
    save_image(stages.work / "captions.png", np.concatenate([np.concatenate(list(row), axis=1) for row in shown]))
    report = {"protocol": RANDOM_KID, "pictures": len(real)}
    report |= {name: number(mean_interval(values, seed=SEED)) for name, values in rows.items()}
    return report | {"16 - 4": number(difference_interval(rows["16"], rows["4"], seed=SEED))}


FIGURES = {
    "logos": functools.partial(logos, count=256),
    "residuals": functools.partial(residuals, count=1024),
    "starts": functools.partial(starts, count=1024),
    "kid": functools.partial(kid, count=512),
}
NEEDS = {
    "logos": ("autoencoder4", "autoencoder16"),
    "residuals": ("autoencoder4", "autoencoder16", "stem", "stage1", "stage1_sgd"),
    "starts": ("autoencoder4", "autoencoder16", "stem", "stage1", "stage1_sgd", "out", "out_sgd"),
    "kid": ("autoencoder4", "autoencoder16", "stem", "stage1", "out", "stage2", "stage3", "more"),
}
