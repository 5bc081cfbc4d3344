"""Serving: exact windows, comparison, changes of the model."""

from pathlib import Path

import numpy as np
import pytest

from hedgerow.client.loading import ReadyModel
from hedgerow.client.serving import ActiveModel
from hedgerow.client.slot_folders import OpenSlot
from hedgerow.reference import Reference
from hedgerow.schema import InputError
from hedgerow.window import Window


class Constant:
    """A model that always says the same class."""

    def __init__(self, label: int) -> None:
        self.label = label

    def predict(self, inputs):
        size = len(inputs["x"])
        return {"probabilities": np.repeat(np.eye(3, dtype=np.float32)[self.label][None], size, axis=0)}


@pytest.fixture
def ready(release):
    def make(number: int) -> ReadyModel:
        made = release(number)
        reference = Reference.decode(made.blobs[made.manifest.reference.sha256])
        slot = OpenSlot(Path("/nowhere"), made.manifest, made.manifest.artifacts[0], reference)
        return ReadyModel(slot, Constant((number - 1) % 3))

    return make


@pytest.fixture
def windows() -> list[Window]:
    return []


@pytest.fixture
def active(windows) -> ActiveModel:
    ticks = iter(range(10**6))
    return ActiveModel(4, windows.append, clock=lambda: 1000.0, timer=lambda: next(ticks) / 1000)


def batch(size: int) -> dict[str, np.ndarray]:
    return {"x": np.zeros((size, 4), dtype=np.float32)}


def test_nothing_serves_at_first(active):
    assert active.release is None
    assert active.predict(batch(1)) is None


def test_windows_are_cut_exactly_whatever_the_batches(active, ready, windows):
    active.activate(ready(1))
    for size in (3, 9, 0, 1):
        assert active.predict(batch(size))["probabilities"].shape == (size, 3)
    assert [window.samples for window in windows] == [4, 4, 4]
    assert [window.index for window in windows] == [0, 1, 2]
    active.cut()
    assert windows[-1].samples == 1
    active.cut()
    assert len(windows) == 4


def test_a_change_of_the_model_cuts_the_window(active, ready, windows):
    active.activate(ready(1))
    active.predict(batch(3), np.zeros(3, dtype=np.int64))
    active.activate(ready(2))
    active.predict(batch(4), np.asarray([0, 1, -1, 1]))
    assert [(w.release, w.index, w.samples, w.labelled, w.correct) for w in windows] == [
        ("demo@1", 0, 3, 3, 3),
        ("demo@2", 1, 4, 3, 2),
    ]


def test_starting_to_compare_does_not_cut_the_window(active, ready, windows):
    first = ready(1)
    active.activate(first)
    active.predict(batch(2), np.zeros(2, dtype=np.int64))
    active.compare(first, ready(2))
    active.predict(batch(2), np.zeros(2, dtype=np.int64))
    (window,) = windows
    active.compare(ready(1), ready(3))
    active.predict(batch(4))
    assert windows[1].paired.disagreed == 4, "what no longer serves changes nothing"
    assert (window.samples, window.paired.disagreed, window.paired.only_new_right) == (4, 2, 2)


def test_stopping_to_serve_cuts_the_window(active, ready, windows):
    active.activate(ready(1))
    active.predict(batch(1))
    active.activate(None)
    assert [window.samples for window in windows] == [1]
    assert active.predict(batch(1)) is None


def test_inputs_that_do_not_fit_are_refused_and_not_counted(active, ready, windows):
    active.activate(ready(1))
    with pytest.raises(InputError):
        active.predict({"x": np.zeros((1, 5), dtype=np.float32)})
    with pytest.raises(InputError):
        active.predict({"y": np.zeros((1, 4), dtype=np.float32)})
    active.cut()
    assert windows == []


def test_a_window_of_nothing_is_a_mistake():
    with pytest.raises(ValueError, match="window_samples"):
        ActiveModel(0, lambda _window: None)
