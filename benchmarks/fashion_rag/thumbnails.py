"""Real garments by their product names: tiny towers trained on 800 shop thumbnails, tested on 200, beside chance."""

import csv
import random
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ragdiff_jax.data.images import load_image, square
from ragdiff_jax.data.pixels import to_float
from ragdiff_jax.data.tokenizer import Tokenizer
from ragdiff_jax.errors import UserError
from ragdiff_jax.systems.text_retrieval import retrieval_metrics
from ragdiff_jax.training.objectives.contrastive import info_nce
from ragdiff_jax.weights.fashion_folder import load_fashion, read_fashion, tokenizer_folder


def run(arguments):
    """Both towers start as the shipped ones; symmetric InfoNCE of 64 pairs, left and right mirrored by chance."""
    if not arguments.real:
        raise UserError("RAGDIFF_REAL_DATA: name the folder that holds thumbnails/")
    folder = Path(arguments.real) / "thumbnails"
    with open(folder / "sample_styles.csv", newline="", encoding="utf-8") as file:
        lines = [line for line in csv.DictReader(file) if (folder / f"{line['id']}.jpg").is_file()]
    random.Random(arguments.seed).shuffle(lines)
    model = read_fashion(arguments.model)
    tokenizer = Tokenizer.from_folder(tokenizer_folder(arguments.model))
    side = model.image_encoder.image_size
    pictures = np.stack([square(load_image(folder / f"{line['id']}.jpg"), side) for line in lines])
    ids = tokenizer.encode([line["productDisplayName"] for line in lines])
    train, test = slice(0, 800), slice(800, 1000)
    params = {part: load_fashion(model, arguments.model)[part] for part in ("text_encoder", "image_encoder")}
    before = _measure(model, params, pictures[test], ids[test])
    params = _trained(model, params, pictures[train], ids[train], arguments.trained, arguments.seed)
    count = len(lines[test])
    return {
        "trained_on": 800,
        "tested_on": count,
        "steps": arguments.trained,
        "chance": {f"recall@{k}": k / count for k in (1, 5, 10)},
        "shipped_towers": before,
        "trained_towers": _measure(model, params, pictures[test], ids[test]),
    }


def _measure(model, params, pictures, ids):
    images = np.asarray(jax.jit(lambda p, x: model.embed_garments(p, to_float(x)))(params, pictures))
    texts = np.asarray(jax.jit(model.embed_text)(params, ids))
    ranked = np.argsort(-(texts @ images.T), axis=1)[:, :10].astype(np.int32)
    found = retrieval_metrics(ranked, np.eye(len(ids), dtype=bool), (1, 5, 10))
    return {name: round(value, 4) for name, value in found.items() if name.startswith("recall")}


def _trained(model, params, pictures, ids, steps, seed):
    optimizer = optax.adamw(optax.cosine_decay_schedule(5e-4, steps), weight_decay=0.2)

    def loss(params, pictures, ids, flip):
        pictures = jnp.where(flip[:, None, None, None], pictures[:, :, ::-1], pictures)
        image, text = model.embed_garments(params, to_float(pictures)), model.embed_text(params, ids)
        return info_nce(image, text, 20.0, symmetric=True)[0].mean()

    @jax.jit
    def step(params, state, pictures, ids, flip):
        updates, state = optimizer.update(jax.grad(loss)(params, pictures, ids, flip), state, params)
        return optax.apply_updates(params, updates), state

    state, rng = optimizer.init(params), np.random.default_rng(seed)
    for _ in range(steps):
        rows = rng.choice(len(ids), 64, replace=False)
        params, state = step(params, state, pictures[rows], ids[rows], rng.random(64) < 0.5)
    return params
