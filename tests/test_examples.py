"""The examples of docs/examples.md run as they stand, and do what their words say."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_model import draw_garment, small_world

import ragdiff_jax as rd

PAGE = Path(__file__).parent.parent / "docs" / "examples.md"


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the blocks have defined when all have run."""
    base = tmp_path_factory.getbasetemp() / "world"
    base.mkdir(exist_ok=True)
    model, memory, _ = small_world(base)
    folder = tmp_path_factory.mktemp("examples")
    draw_garment("red").save(folder / "flat.png")
    draw_garment("darkred", width=24).rotate(10, fillcolor="grey").save(folder / "photo.png")
    names = {
        "MODEL_DIR": str(model),
        "MEMORY_DIR": str(memory),
        "PHOTO": str(folder / "photo.png"),
        "FLAT": str(folder / "flat.png"),
    }
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S)
    assert len(blocks) == 3
    for block in blocks:
        # Lines of a failure are the page's.
        line = PAGE.read_text(encoding="utf-8")[: PAGE.read_text(encoding="utf-8").index(block)].count("\n")
        exec(compile("\n" * line + block, str(PAGE), "exec"), names)
    return names


def test_only_public_names_are_used():
    page = PAGE.read_text(encoding="utf-8")
    assert set(re.findall(r"\brd\.(\w+)", page)) <= set(rd.__all__)
    assert not re.findall(r"^(?:from|import) ragdiff_jax(?! as rd$)", page, flags=re.M)


def test_the_train_step_trains_what_it_says(names):
    assert len(names["losses"]) == 3 and np.isfinite(names["losses"]).all()
    before = rd.load(names["model"], names["MODEL_DIR"])
    after = names["params"]
    assert jax.tree.structure(before) == jax.tree.structure(after)
    for part in before:
        moved = [bool((a != b).any()) for a, b in zip(*map(jax.tree.leaves, (before[part], after[part])), strict=True)]
        assert all(moved) if part == "landmark_guider" else not any(moved), part


def test_the_sampler_makes_pictures(names):
    size = names["model"].image_size
    assert names["image"].shape == (1, size, size, 3) and np.isfinite(names["image"]).all()
    assert names["rows"].shape == (1, names["model"].neighbours)


def test_the_sampler_finds_the_one_picture_there_is(names):
    """With all data at one point the velocity is known, and every path ends in that point."""
    schedule = names["model"].schedule
    point = jax.random.normal(jax.random.key(3), (2, 3, 3, 4))
    angles = jnp.asarray(np.arccos(np.sqrt(schedule.alphas_cumprod)), jnp.float32)

    def velocity(x, t):
        cos, sin = (f(angles[t])[:, None, None, None] for f in (jnp.cos, jnp.sin))
        return cos * (x - cos * point) / sin - sin * point

    found = names["sample_heun"](velocity, schedule, jax.random.normal(jax.random.key(4), point.shape), steps=20)
    np.testing.assert_allclose(found, point, atol=1e-4)
