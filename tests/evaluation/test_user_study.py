"""The study's page tells no method, and scores find their way back to the methods."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from ragdiff_jax.errors import UserError
from ragdiff_jax.evaluation.user_study import QUESTIONS, build_study, read_scores


@pytest.fixture
def study(tmp_path):
    files = {}
    for folder in ("photos", "ours", "theirs"):
        (tmp_path / folder).mkdir()
        files[folder] = {f"garment{i}": tmp_path / folder / f"garment{i}.png" for i in range(5)}
        for file in files[folder].values():
            Image.fromarray(np.full((20, 16, 3), 90, np.uint8)).save(file)
    return files.pop("photos"), files


def answer(page, key, tmp_path, who, score):
    names = re.findall(r'select name="([^"]+)"', page)
    scores = {name: score(key["tasks"][int(name.split("/")[0])]["methods"][int(name.split("/")[1])]) for name in names}
    file = tmp_path / f"{who}.json"
    file.write_text(json.dumps({"study": key["study"], "scores": scores}))
    return file


def test_scores_come_back_to_their_methods(study, tmp_path):
    page, key = build_study(*study, size=32, seed=3)
    assert not re.search("ours|theirs|garment[0-9]", page)
    assert page.count("<select") == 5 * 2 * len(QUESTIONS) and page.count("<img") == 5 * 3
    assert len({tuple(task["methods"]) for task in key["tasks"]}) == 2  # not always in one order
    assert build_study(*study, size=32, seed=3) == (page, key)
    Image.fromarray(np.full((20, 16, 3), 91, np.uint8)).save(study[1]["ours"]["garment2"])
    assert build_study(*study, size=32, seed=3)[1]["study"] != key["study"]  # scores of other pictures don't fit
    files = [answer(page, key, tmp_path, who, lambda method: 9 if method == "ours" else 4) for who in "ab"]
    table = read_scores(json.loads(json.dumps(key)), files)
    assert table["ours"]["detail"] == {
        "count": 10, "mean": 9, "low": 9, "high": 9, "median": 9, "quartiles": [9, 9], "outliers": 0,
    }  # fmt: skip
    assert table["theirs"]["structure"]["mean"] == 4


def test_bad_answers_are_named(study, tmp_path):
    page, key = build_study(*study, size=32, seed=0)
    eleven = answer(page, key, tmp_path, "eleven", lambda method: 11)
    with pytest.raises(UserError, match="eleven.json: score 11"):
        read_scores(key, [eleven])
    good = answer(page, key, tmp_path, "good", lambda method: 5)
    with pytest.raises(UserError, match="good.json: of study"):
        read_scores(key | {"study": "other"}, [good])
    good.write_text(json.dumps({"study": key["study"], "scores": {}}))
    with pytest.raises(UserError, match="not a complete file"):
        read_scores(key, [good])
    photos, methods = study
    with pytest.raises(UserError, match="ours: garment0"):
        build_study(photos, methods | {"ours": {}}, size=32, seed=0)
