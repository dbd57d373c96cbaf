"""The small parts: the feed, the step line, the compilation cache's place."""

import pytest

from ragdiff_jax.parallel import enable_compilation_cache
from ragdiff_jax.training.feed import Feed
from ragdiff_jax.training.metrics import clock, step_line


def test_feed_keeps_the_order_and_hands_errors_on():
    def source():
        yield from range(3)
        raise OSError("disk gone")

    feed = Feed(source())
    assert [next(feed) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="disk gone"):
        next(feed)


def test_feed_closes_an_endless_source():
    closed = []

    def source():
        try:
            while True:
                yield 0
        finally:
            closed.append(True)

    feed = Feed(source())
    next(feed)
    feed.close()
    assert closed and not feed._thread.is_alive()


def test_step_line():
    scalars = {"loss": 0.12341, "grad": 0.98, "lr": 1e-4, "accuracy": 0.5}
    line = step_line(120, 4000, scalars, 54.2, 754.0)
    assert line == "step 120/4000  loss 0.1234  grad 0.98  accuracy 0.5  lr 1.0e-4  54.2 samples/s  ETA 12:34"
    assert step_line(1, 4000, scalars).endswith("lr 1.0e-4")
    assert clock(3723.0) == "1:02:03"


def test_the_cache_is_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("RAGDIFF_CACHE", str(tmp_path / "here"))
    assert enable_compilation_cache() == tmp_path / "here" / "xla"
    assert (tmp_path / "here" / "xla").is_dir()
