"""Every kind of output on a device: answers in words, scores in windows, the model before, and what is learned from."""

import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hedgerow.client.buffer import LabelledBuffer
from hedgerow.client.health import Health, Part
from hedgerow.client.loading import ReadyModel
from hedgerow.client.model_work import ModelWork
from hedgerow.client.serving import ActiveModel
from hedgerow.client.slot_folders import OpenSlot
from hedgerow.client.source import Sample, SourceContext
from hedgerow.client.stream import Stream
from hedgerow.client.trainer import train
from hedgerow.features import input_features
from hedgerow.manifest.content import Tensor
from hedgerow.model_schema import ModelSchema
from hedgerow.outputs import Classes, Custom, Labels, Outputs, Reconstruction, Tokens, Values
from hedgerow.outputs.wanted import as_given
from hedgerow.reference import build_reference
from hedgerow.schema import TensorSpec
from tests.client.conftest import make_release
from tests.given import given

X = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
KINDS = {
    "classes": (Classes(("a", "b", "c")), np.arange(40) % 3),
    "labels": (Labels(("hot", "wet")), np.stack([np.arange(40) % 2, np.arange(40) // 2 % 2], axis=1)),
    "values": (Values(("level", "flow"), (1.0, 20.0)), (X[:, :2] * [1, 20]).astype(np.float32)),
    "reconstruction": (Reconstruction(threshold=2.0), (np.arange(40) % 4 == 0).astype(np.int64)),
    "tokens": (Tokens(("lo", "hi"), 3), (X[:, :3] > 0).astype(np.int64)),
    "custom": (Custom((2,)), X[:, 0]),
    "several": (
        {"state": Classes(("a", "b")), "level": Values(("level", "flow"), 1.0, weight=3.0)},
        {"state": np.arange(40) % 2, "level": X[:, :2]},
    ),
}
"""Kind -> its output, and the target values of the samples X."""


def truth(kind: str):
    """Return a kind's outputs and the target values of X by output."""
    outputs = Outputs.of(KINDS[kind][0])
    wanted = KINDS[kind][1]
    return outputs, wanted if isinstance(wanted, dict) else dict.fromkeys(outputs, wanted)


def one(kind: str, place: int):
    """Return the target value of one sample, as a source gives it."""
    wanted = KINDS[kind][1]
    return {name: part[place] for name, part in wanted.items()} if isinstance(wanted, dict) else wanted[place]


class Known:
    """A model that is right on those samples of X that it is told."""

    def __init__(self, outputs: Outputs, wanted, is_right) -> None:
        self.answers = given(outputs, wanted, np.asarray(is_right))

    def load(self, _path, _artifact) -> "Known":
        return self

    def predict(self, inputs):
        places = [int(np.flatnonzero((row == X).all(axis=1))[0]) for row in inputs["x"]]
        return {name: values[places] for name, values in self.answers.items()}


def ready(outputs: Outputs, model: Known, number: int = 1) -> ReadyModel:
    made = make_release(number).manifest
    schema = ModelSchema((TensorSpec("x", (4,), minimum=-8, maximum=8),), outputs.tensors(), outputs)
    columns = {**input_features(schema, {"x": X}), **outputs.features(model.answers)}
    categories = {name: (columns.pop(name), names) for name, names in outputs.categories().items()}
    reference = build_reference({name: np.nan_to_num(values) for name, values in columns.items()}, categories)
    slot = OpenSlot(Path("/nowhere"), replace(made, model_schema=schema), made.artifacts[0], reference)
    return ReadyModel(slot, model)


@pytest.fixture
def windows() -> list:
    return []


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def active(windows, health) -> ActiveModel:
    return ActiveModel(40, windows.append, clock=lambda: 1000.0, health=health)


def served(active: ActiveModel, samples, folder: Path, health: Health) -> list:
    """Let a source yield samples; return the answers."""
    answers, buffer = [], LabelledBuffer(folder)

    def source(_context):
        for sample in samples:
            answer = yield sample
            answers.append(answer)
        raise KeyboardInterrupt

    over = iter([False] * (len(samples) + 1) + [True] * 10)
    stream = Stream(
        source, SourceContext("d1", folder), active, buffer, health, pause=lambda _s: next(over), timer=lambda: 0.0
    )
    stream.run()
    buffer.close()
    return answers


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_gives_target_values_and_gets_each_answer_in_words(kind, active, windows, health, tmp_path):
    outputs, wanted = truth(kind)
    is_right = np.arange(40) % 5 != 0
    model = Known(outputs, wanted, is_right)
    active.activate(ready(outputs, model))

    answers = served(active, [Sample({"x": X[i]}, target_value=one(kind, i)) for i in range(40)], tmp_path, health)

    assert [answer.told for answer in answers] == [
        outputs.told({name: values[place] for name, values in model.answers.items()}) for place in range(40)
    ]
    (window,) = windows
    scores = outputs.scores(model.answers, wanted) if kind != "custom" else np.zeros(0)
    assert (window.samples, window.scores.samples) == (40, len(scores))
    # Each score is kept to the nearest multiple of 2**-16.
    assert window.scores.total == pytest.approx(scores.sum(), abs=40 * 2**-17)
    assert set(window.features) == {"x.0", "x.1", "x.2", "x.3", *outputs.features(model.answers)}
    assert Part.COUNTING not in health.failing


@pytest.mark.parametrize("kind", KINDS)
def test_a_target_value_of_another_form_costs_no_answer_and_the_sample_counts_without_it(
    kind, active, windows, health, tmp_path
):
    outputs, wanted = truth(kind)
    active.activate(ready(outputs, Known(outputs, wanted, np.ones(40, bool))))
    samples = [Sample({"x": X[0]}, target_value=np.zeros((5, 5, 5)))]
    samples += [Sample({"x": X[i]}, target_value=one(kind, i)) for i in range(1, 40)]

    answers = served(active, samples, tmp_path, health)

    assert None not in answers
    (window,) = windows
    assert (window.samples, window.scores.samples) == (40, 0 if kind == "custom" else 39)
    assert any(problem.startswith("counting: ") for problem in health.problems)


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_before_is_compared_by_what_both_say(kind, active, windows):
    outputs, wanted = truth(kind)
    now, before = np.arange(40) % 5 != 0, np.arange(40) % 4 != 0
    new, old = (Known(outputs, wanted, is_right) for is_right in (now, before))
    first = ready(outputs, new)
    active.activate(first)
    active.compare(first, ready(outputs, old))

    active.predict({"x": X}, wanted)

    (window,) = windows
    alike = outputs.agreement(new.answers, old.answers)
    assert window.paired.agreement.total == pytest.approx(alike.sum(), abs=40 * 2**-17)
    if kind != "custom":
        change = outputs.scores(new.answers, wanted) - outputs.scores(old.answers, wanted)
        assert 2 * window.paired.change.total - 40 == pytest.approx(change.sum(), abs=80 * 2**-17)
    assert window.paired.agreement.samples == 40


def test_a_model_before_with_another_threshold_is_judged_by_its_own_flags(active, windows):
    outputs, wanted = truth("reconstruction")
    before = Outputs.of(Reconstruction(threshold=50.0))
    is_right = np.arange(40) % 5 != 0
    new, old = Known(outputs, wanted, is_right), Known(before, wanted, is_right)
    first = ready(outputs, new)
    active.activate(first)
    active.compare(first, ready(before, old))

    active.predict({"x": X}, wanted)

    (window,) = windows
    assert (window.paired.agreement.total, window.paired.agreement.samples) == (40, 40)
    assert (window.paired.gained, window.paired.lost) == (0, 0)
    assert window.scores.total == 32


@pytest.mark.parametrize(
    ("now", "before", "is_compared"),
    [
        (Classes(("a", "b")), Classes(("a", "b")), True),
        (Classes(("a", "b")), Classes(("a", "b"), weight=2.0), True),
        (Classes(("a", "b")), Classes(("b", "a")), False),
        (Classes(("a", "b")), Labels(("a", "b")), False),
        (Labels(("a", "b")), Labels(("a", "b"), threshold=0.7), False),
        (Values("level", 1.0), Values("level", 2.0), False),
        (Reconstruction(threshold=1.0), Reconstruction(0.1, threshold=2.0), True),
        (Reconstruction(threshold=1.0), Reconstruction(), False),
        (Reconstruction(), Reconstruction(), False),
        (Custom((2,)), Custom((2,)), True),
        ({"s": Classes(("a", "b")), "l": Values("l", 1.0)}, {"s": Classes(("a", "b")), "l": Values("l", 1.0)}, True),
        ({"s": Classes(("a", "b")), "l": Values("l", 1.0)}, {"s": Classes(("a", "b"))}, False),
    ],
)
def test_only_a_model_before_whose_outputs_mean_the_same_is_run_beside_the_active_one(
    now, before, is_compared, active, health, caplog
):
    slots = []
    for outputs in map(Outputs.of, (now, before)):
        made = make_release(len(slots) + 1).manifest
        schema = ModelSchema((TensorSpec("x", (4,)),), outputs.tensors(), outputs)
        slots.append(OpenSlot(Path("/nowhere"), replace(made, model_schema=schema), made.artifacts[0], None))
    folders = SimpleNamespace(state=SimpleNamespace(previous_slot="A"), open=lambda _slot: slots[1])
    loaded = []

    class Runtime:
        def load(self, _path, _artifact):
            loaded.append(True)

    work = ModelWork(folders, None, active, lambda _name: Runtime(), health, lambda _event: None)
    with caplog.at_level(logging.WARNING):
        work.compare(ReadyModel(slots[0], None), is_wanted=True)

    assert health.problems == ()
    assert loaded == [True] * is_compared
    assert ("demo@1 has other outputs than the release before; not compared" in caplog.text) != is_compared


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_source_lets_a_device_learn_reaches_the_train_step_in_the_declared_form(kind, active, health, tmp_path):
    outputs, wanted = truth(kind)
    active.activate(ready(outputs, Known(outputs, wanted, np.ones(40, bool))))
    samples = [Sample({"x": X[i]}, use="learn", target_value=one(kind, i)) for i in range(40)]

    assert served(active, samples, tmp_path, health) == [None] * 40

    learned = [i for i in range(40) if kind != "reconstruction" or wanted["anomaly"][i] == 0]
    targets = tuple(
        Tensor(name, f"target.{name}", (8, *output.target_shape), output.target_dtype)
        for name, output in outputs.items()
        if not output.learns_alone
    )
    graph = replace(make_release(1).manifest.train_graphs[0], batch_size=8, targets=targets)
    seen = []

    def step(inputs, values, _rate, parameters):
        for place, row in enumerate(inputs["x"]):
            source = int(np.flatnonzero((row == X).all(axis=1))[0])
            seen.append(source)
            for name, output in outputs.items():
                assert values[name].dtype == output.target_dtype
                np.testing.assert_array_equal(
                    values[name][place], np.asarray(wanted[name][source], output.target_dtype)
                )
        return 1.0, dict(parameters)

    schema = ModelSchema((TensorSpec("x", (4,)),), outputs.tensors(), outputs)
    weights = {"weight": np.zeros((4, 3), np.float32), "bias": np.zeros(3, np.float32)}
    buffer = LabelledBuffer(tmp_path)
    with buffer.samples(schema) as found:
        result = train(step, graph, found, weights, epochs=1, learning_rate=0.1, rng=np.random.default_rng(0))
    buffer.close()
    assert result.examples == len(learned)
    assert set(seen) == set(learned)


def test_a_device_keeps_what_nobody_judged_only_for_what_learns_alone(active, health, tmp_path):
    samples = [Sample({"x": X[i]}, use="learn") for i in range(40)]
    for kind, kept in (("reconstruction", 40), ("classes", 0), ("several", 0)):
        outputs, wanted = truth(kind)
        active.activate(ready(outputs, Known(outputs, wanted, np.ones(40, bool))))
        served(active, samples, tmp_path / kind, health)
        buffer = LabelledBuffer(tmp_path / kind)
        assert len(buffer) == kept
        buffer.close()


def test_a_sample_has_a_label_or_a_target_value(active, health, tmp_path):
    outputs, wanted = truth("classes")
    active.activate(ready(outputs, Known(outputs, wanted, np.ones(40, bool))))

    both = Sample({"x": X[0]}, 0, target_value=0)
    assert served(active, [both, Sample({"x": X[0]}, 0)], tmp_path, health)[1].told["index"] == 0
    assert any("expected a label or a target value, found both" in problem for problem in health.problems)
    assert as_given(0).keys() == {""}
