"""R Fig. 4's user study: an anonymised page that collects scores of 1 to 10, and what the scores say."""

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ragdiff_jax.data.images import encode_jpeg, load_image, one_line, square
from ragdiff_jax.errors import UserError
from ragdiff_jax.evaluation.bootstrap import mean_interval

QUESTIONS = ("structure", "detail")
SCHEMA = 1
_CHOICES = range(1, 11)


def build_study(
    photos: Mapping[str, Path], methods: Mapping[str, Mapping[str, Path]], *, size: int, seed: int
) -> tuple[str, dict[str, Any]]:
    """(page, key): the HTML for participants, and the file that says which method stood where, to be kept from them.

    `photos`: {name: file}; `methods`: {method: {name: file}}, every method with every photo. Photos come in a random
    order, methods in another one under each photo; both follow from `seed`. The page holds its pictures and names
    neither method nor file.
    """
    if len(methods) < 1 or not photos:
        raise UserError("a study needs photos and at least one method")
    missing = [f"{method}: {name}" for method, files in methods.items() for name in photos if name not in files]
    if missing:
        rest = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
        raise UserError(f"methods without a picture of a photo: {', '.join(missing[:10])}{rest}; add or leave them out")
    rng, order = np.random.default_rng(seed), sorted(photos)
    rng.shuffle(order)
    tasks, placed = [], []
    for number, name in enumerate(order):
        places = sorted(methods)
        rng.shuffle(places)
        placed.append({"photo": name, "methods": places})
        cells = "".join(
            f"<figure>{_picture(methods[method][name], size)}<figcaption>{chr(65 + place)}</figcaption>"
            + "".join(_question(number, place, question) for question in QUESTIONS)
            + "</figure>"
            for place, method in enumerate(places)
        )
        photo = f"<figure>{_picture(photos[name], size)}<figcaption>photo</figcaption></figure>"
        tasks.append(f"<section><h2>{number + 1} of {len(order)}</h2>{photo}{cells}</section>")
    # The pictures too: scores of other pictures by the same names are of another study.
    study = hashlib.sha256(json.dumps([seed, placed, tasks]).encode()).hexdigest()[:12]
    key = {"schema": SCHEMA, "study": study, "tasks": placed}
    script = _SCRIPT.replace("STUDY", json.dumps(study))
    return (
        f"<!doctype html><meta charset=utf-8><title>Study</title><style>{_STYLE}</style><h1>Garments</h1>"
        "<p>Each photo shows a garment, and each lettered picture is an attempt at its product image. Score each from "
        "1 (bad) to 10 (perfect): <b>structure</b> (shape, sleeves, collar, proportions) and <b>detail</b> (pattern, "
        f"logo, text, colour). Save the file at the end and send it back.</p>{''.join(tasks)}"
        f"<button id=save>Save my scores</button> <span id=left></span><script>{script}</script>"
    ), key


def read_scores(key: Mapping[str, Any], files: Sequence[Path], *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """{method: {question: count, mean, low, high, median, quartiles, outliers}} of all participants' files.

    Intervals draw photos together, since the scores of one photo resemble each other. Outliers lie further than 1.5
    interquartile ranges from the quartiles, as in a box plot. Raises `UserError` naming a file that isn't complete
    or belongs to another study.
    """
    values: dict[tuple[str, str], list[float]] = {}
    photos: dict[tuple[str, str], list[str]] = {}
    wanted = {
        f"{number}/{place}/{question}": (method, question, task["photo"])
        for number, task in enumerate(key["tasks"])
        for place, method in enumerate(task["methods"])
        for question in QUESTIONS
    }
    for file in files:
        try:
            record = json.loads(Path(file).read_bytes())
            study, scores = record["study"], record["scores"]
            found = {name: scores[name] for name in wanted}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{one_line(file)}: not a complete file of scores ({error!r}); leave it out") from error
        if study != key["study"]:
            raise UserError(f"{one_line(file)}: of study {study!r}, the key is of {key['study']!r}; leave it out")
        for name, score in found.items():
            if type(score) is not int or score not in _CHOICES:
                raise UserError(f"{one_line(file)}: score {score!r} of {name} isn't a whole number of 1 to 10")
            method, question, photo = wanted[name]
            values.setdefault((method, question), []).append(score)
            photos.setdefault((method, question), []).append(photo)
    if not values:
        raise UserError("no files of scores; name at least one")
    table: dict[str, dict[str, Any]] = {}
    for (method, question), scores in sorted(values.items()):
        column = np.array(scores, np.float64)
        interval = mean_interval(column, seed=seed, groups=np.array(photos[method, question]))
        low, middle, high = np.quantile(column, (0.25, 0.5, 0.75))
        beyond = (column < low - 1.5 * (high - low)) | (column > high + 1.5 * (high - low))
        table.setdefault(method, {})[question] = {
            "count": len(column),
            "mean": interval.estimate,
            "low": interval.low,
            "high": interval.high,
            "median": float(middle),
            "quartiles": [float(low), float(high)],
            "outliers": int(beyond.sum()),
        }
    return table


def _picture(file: Path, size: int) -> str:
    data = base64.b64encode(encode_jpeg(square(load_image(file), size))).decode()
    return f'<img src="data:image/jpeg;base64,{data}">'


def _question(number: int, place: int, question: str) -> str:
    options = "".join(f"<option>{score}" for score in _CHOICES)
    name = html.escape(f"{number}/{place}/{question}")
    return f'<label>{question} <select name="{name}"><option value="">-{options}</select></label>'


_STYLE = (
    "body{font:16px sans-serif;max-width:1200px;margin:2em auto}figure{display:inline-block;margin:.5em;vertical-align:"
    "top}figcaption{font-weight:bold}label{display:block}button{font-size:1.2em}"
)
_SCRIPT = """
const all = [...document.querySelectorAll('select')], left = document.getElementById('left');
const open = () => all.filter(one => !one.value);
const store = 'study-' + STUDY, kept = JSON.parse(localStorage.getItem(store) || '{}');
for (const one of all) {
  one.value = kept[one.name] || '';
  one.onchange = () => { kept[one.name] = one.value; localStorage.setItem(store, JSON.stringify(kept)); say(); };
}
const say = () => { left.textContent = open().length ? open().length + ' scores are missing' : 'complete'; };
say();
document.getElementById('save').onclick = () => {
  if (open().length) { open()[0].focus(); return; }
  const scores = Object.fromEntries(all.map(one => [one.name, Number(one.value)]));
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([JSON.stringify({study: STUDY, scores})], {type: 'application/json'}));
  link.download = 'scores.json';
  link.click();
};
"""
