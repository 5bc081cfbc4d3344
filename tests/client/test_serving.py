"""Serving: exact windows, comparison, changes of the model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hedgerow.client.errors import PredictionError
from hedgerow.client.health import Health, Part
from hedgerow.client.loading import ReadyModel
from hedgerow.client.serving import ActiveModel
from hedgerow.client.slot_folders import OpenSlot
from hedgerow.errors import InputError
from hedgerow.outputs.wanted import as_given
from hedgerow.reference import Reference
from hedgerow.window import Window
from tests.client.remembering import Remembering, ready_of, streaming
from tests.scores import compared, known_and_right


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
def health() -> Health:
    return Health()


@pytest.fixture
def active(windows, health) -> ActiveModel:
    ticks = iter(range(10**6))
    return ActiveModel(4, windows.append, clock=lambda: 1000.0, timer=lambda: next(ticks) / 1000, health=health)


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
    active.cut(1)
    assert windows[-1].samples == 1
    active.cut(1)
    assert len(windows) == 4


def test_a_change_of_the_model_cuts_the_window(active, ready, windows):
    active.activate(ready(1))
    active.predict(batch(3), np.zeros(3, dtype=np.int64))
    active.activate(ready(2))
    active.predict(batch(4), np.asarray([0, 1, -1, 1]))
    assert [(w.release, w.index, w.samples, *known_and_right(w.scores)) for w in windows] == [
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
    assert compared(windows[1].paired)[1] == 4, "what no longer serves changes nothing"
    assert (window.samples, compared(window.paired)) == (4, (0, 2, 2, 0))


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
    active.cut(1)
    assert windows == []


class Failing:
    """A model that raises."""

    def predict(self, _inputs):
        raise RuntimeError("out of arena")


def test_a_model_that_fails_is_named_with_its_release_and_not_counted(active, ready, windows, health):
    made = ready(1)
    active.activate(ReadyModel(made.slot, Failing()))
    with pytest.raises(PredictionError, match=r"demo@1.*out of arena"):
        active.predict(batch(1))
    with pytest.raises(PredictionError, match=r"demo@1.*out of arena"):
        active.answer({"x": np.zeros(4, dtype=np.float32)})
    assert health.problems == ("model: RuntimeError",)
    active.activate(made)
    assert health.problems == (), "another model is another matter"
    active.cut(1)
    assert windows == []


def test_an_answer_names_the_release_that_gave_it(active, ready):
    active.activate(ready(2))
    answer = active.answer({"x": np.zeros(4, dtype=np.float32)}, as_given(1))
    assert (answer.release, answer.index, answer.label, answer.confidence) == ("demo@2", 1, "b", 1.0)


@pytest.mark.parametrize("outputs", [None, [1], {"probabilities": np.zeros((0, 3))}, {"probabilities": 5}])
def test_what_is_no_prediction_is_the_models_fault(active, ready, outputs, health):
    class Odd:
        def predict(self, _inputs):
            return outputs

    odd = ReadyModel(ready(1).slot, Odd())
    active.activate(odd)
    with pytest.raises(PredictionError):
        active.answer({"x": np.zeros(4, dtype=np.float32)})
    assert Part.MODEL in health.failing
    assert (odd.answers.given, odd.answers.failed) == (0, 1)
    good = ready(1)
    active.activate(good)
    active.answer({"x": np.zeros(4, dtype=np.float32)})
    assert (good.answers.given, good.answers.failed) == (1, 0)


def test_a_fault_in_counting_costs_the_sample_in_the_window_and_not_the_answer(active, ready, windows, health):
    class TooFew(Constant):
        def predict(self, inputs):
            return {"probabilities": super().predict(inputs)["probabilities"][:, None]}

    made = ready(1)
    model = Constant(0)
    active.activate(ReadyModel(made.slot, model))
    active.predict(batch(2), np.zeros(2, dtype=np.int64))
    model.predict = TooFew(0).predict
    assert active.predict(batch(1), np.zeros(1, dtype=np.int64))["probabilities"].shape == (1, 1, 3)
    assert [problem.split(":")[0] for problem in health.problems] == ["counting"]
    model.predict = Constant(0).predict
    active.predict(batch(2), np.zeros(2, dtype=np.int64))
    (window,) = windows
    assert (window.samples, *known_and_right(window.scores)) == (4, 4, 4)
    assert all(sum(f.counts) + f.missing == 4 for f in window.features.values()), "counted as a whole or not at all"
    assert sum(window.latency) == 4


def test_the_model_before_that_fails_costs_the_comparison_and_not_the_answer(active, ready, windows, health):
    first = ready(1)
    active.activate(first)
    active.compare(first, ReadyModel(ready(2).slot, Failing()))
    assert active.predict(batch(4))["probabilities"].shape == (4, 3)
    assert health.problems == ("comparison: RuntimeError",)
    (window,) = windows
    assert (window.samples, compared(window.paired)) == (4, (0, 0, 0, 0))
    active.compare(first, None)
    assert health.problems == ()


def test_windows_that_cannot_be_kept_are_said_once_and_again_at_the_end(ready, caplog):
    caplog.set_level("INFO")
    kept, is_full, now = [], [True], [0.0]

    def store(window: Window) -> None:
        if is_full:
            raise OSError(28, "No space left on device")
        kept.append(window)

    health = Health(timer=lambda: now[0])
    active = ActiveModel(2, store, health=health, clock=lambda: now[0])
    active.activate(ready(1))
    for _ in range(37):
        now[0] += 1
        assert active.predict(batch(2))["probabilities"].shape == (2, 3)
    is_full.clear()
    now[0] += 5
    active.predict(batch(2))
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("ERROR", "a window could not be written: OSError: [Errno 28] No space left on device"),
        ("INFO", "windows are written again; 37 were not written at once in 36 s"),
    ]
    assert [window.index for window in kept] == [37], "the gap shows"


def test_a_window_that_cannot_be_kept_does_not_keep_another_release_from_serving(ready):
    def store(_window: Window) -> None:
        raise ValueError("a fault")

    active = ActiveModel(10, store)
    active.activate(ready(1))
    active.predict(batch(1))
    active.activate(ready(2))
    assert active.release == "demo@2"


def test_a_reference_that_cannot_be_counted_into_costs_no_answer(active, ready, health):
    made = ready(1)
    broken = replace(made.slot, reference=None)
    active.activate(ReadyModel(broken, made.model))
    assert active.predict(batch(3))["probabilities"].shape == (3, 3)
    assert Part.COUNTING in health.failing


def test_a_window_of_nothing_is_a_mistake():
    with pytest.raises(ValueError, match="window_samples"):
        ActiveModel(0, lambda _window: None)


def winners(active: ActiveModel, size: int, stream: str = "") -> list[int]:
    outputs = active.predict(batch(size), stream=stream)
    assert list(outputs) == ["probabilities"], "state is nobody's answer"
    return outputs["probabilities"].argmax(axis=1).tolist()


def test_a_model_with_state_goes_on_over_calls_and_over_windows(release, active, windows):
    active.activate(ready_of(streaming(release(1))))

    assert winners(active, 5) == [0, 1, 2, 0, 1]
    assert winners(active, 1) == [2]
    assert [window.samples for window in windows] == [4]
    assert sorted(windows[0].features) == ["output.confidence", "output.label", "x.0", "x.1", "x.2", "x.3"]


def test_streams_of_one_model_do_not_mix_and_one_is_reset(release, active):
    active.activate(ready_of(streaming(release(1))))
    winners(active, 2, "left")

    assert winners(active, 1, "right") == [0]
    assert winners(active, 1, "left") == [2]
    active.reset("left")
    assert winners(active, 1, "left") == [0]
    assert winners(active, 1, "right") == [1]
    active.reset()
    assert winners(active, 1, "right") == [0]


def test_another_release_begins_with_a_state_of_zeros(release, active):
    active.activate(ready_of(streaming(release(1))))
    winners(active, 2)
    active.activate(ready_of(streaming(release(2))))

    assert winners(active, 1) == [0]


def test_a_caller_gives_no_state(release, active):
    active.activate(ready_of(streaming(release(1))))

    with pytest.raises(InputError, match="expected the inputs x, found h, x"):
        active.predict({**batch(1), "h": np.zeros((1, 2, 1, 4), np.float32)})


def test_the_answer_to_one_sample_goes_on_too_and_a_failure_leaves_the_state(release, active):
    model = Remembering()
    active.activate(ready_of(streaming(release(1)), model))
    answers = [active.answer({"x": np.zeros(4, np.float32)}, stream="mic").label for _ in range(2)]
    model.fails = True
    with pytest.raises(PredictionError, match="out of arena"):
        active.answer({"x": np.zeros(4, np.float32)}, stream="mic")
    model.fails = False
    answers.append(active.answer({"x": np.zeros(4, np.float32)}, stream="mic").label)

    assert answers == ["a", "b", "c"]


def test_the_model_before_has_a_state_of_its_own_and_is_reset_with_the_stream(release, active, windows):
    new, old = ready_of(streaming(release(2))), ready_of(streaming(release(1)))
    active.activate(new)
    winners(active, 1)
    active.compare(new, old)
    winners(active, 2)  # new 1, 2; old 0, 1
    active.reset()
    winners(active, 2)  # both begin anew
    active.cut(1)

    assert compared(windows[-1].paired)[:2] == (1, 0)
    assert compared(windows[-2].paired)[:2] == (1, 2)
