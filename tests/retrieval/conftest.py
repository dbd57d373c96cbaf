"""A small memory that tests can use and break."""

import pytest
from memory_items import DIM, FINGERPRINT, SIZE, make_item

from ragdiff_jax.retrieval import Memory


@pytest.fixture
def memory(tmp_path) -> Memory:
    """Seven items in two segments, one of them removed."""
    memory = Memory.create(tmp_path / "memory", FINGERPRINT, SIZE, DIM)
    memory.add([make_item(i) for i in range(5)])
    memory.add([make_item(i) for i in range(5, 8)])
    memory.remove(["garment-1"])
    return memory
