"""The shipped model, memory and editor belong together."""

from pathlib import Path

import ragdiff_jax as rd
from ragdiff_jax.weights.fashion_folder import load_fashion, read_fashion
from ragdiff_jax.weights.model_folder import load_structure_net, structure_fingerprint

ASSETS = Path(rd.__file__).parent / "assets"


def test_the_shipped_memory_is_the_shipped_encoders():
    memory = rd.Memory.open(ASSETS / "memory", structure_fingerprint(*load_structure_net(ASSETS / "tiny")))
    memory.verify()
    side = rd.read_model(ASSETS / "tiny").image_size
    assert memory.manifest.landmark_size == (side, side) and len(memory) > 4000


def test_the_shipped_editor_finds_the_parts_that_it_shares():
    model = read_fashion(ASSETS / "fashion_rag")
    assert load_fashion(model, ASSETS / "fashion_rag").keys() == model.configs().keys()
    assert model.window == 0.6


def test_what_ships_is_at_most_40_megabytes():
    assert sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()) <= 40_000_000
