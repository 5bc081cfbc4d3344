"""The simulated devices of the examples: what they give, and how far their world can be shifted."""

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from hedgerow.client import SourceContext
from hedgerow.client.source import load_source
from hedgerow.features import input_features
from hedgerow.fleet.drift.effect_size import js_bits
from hedgerow.fleet.drift.findings import DriftPlan
from hedgerow.outputs.wanted import as_declared, as_given
from hedgerow.reference import build_reference
from hedgerow.task import load_task

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(120)]
EXAMPLES = Path(__file__).parents[2] / "examples"
KNOWN = {"winding": "known", "vibration": "judged"}
"""Example -> the option that says of how much of the world the target values are known."""
SHIFTED = [
    ("winding", {"blocked_fan": True}, "measured.case.mean"),
    ("vibration", {"gain": 1.8}, "vibration.std"),
    ("vibration", {"condition": "bearing"}, "vibration.std"),
]


def task_of(name):
    return load_task(f"{EXAMPLES / name / 'task.py'}:task")


def source(folder, name, world=None, device="pump-1", **options):
    """Return what a device yields, as fast as it is taken."""
    folder.mkdir(exist_ok=True)
    if world is not None:
        (folder / "world.json").write_text(world if isinstance(world, str) else json.dumps(world))
    stream = load_source(f"{EXAMPLES / name / 'device.py'}:stream")
    return iter(stream(SourceContext(device, folder, {"rate_per_s": "0", **options})))


def served(samples, count):
    return list(islice((sample for sample in samples if sample.use == "serve"), count))


def inputs_of(samples):
    return {name: np.stack([sample.inputs[name] for sample in samples]) for name in samples[0].inputs}


def effects(name, samples):
    """Return the Jensen-Shannon divergence of each input feature from the training data, in bits."""
    task = task_of(name)
    train = input_features(task.schema, task.load_data().train.inputs)
    found = input_features(task.schema, inputs_of(samples))
    return {
        feature.name: js_bits(feature.counts, feature.bin(found[feature.name]).tolist())
        for feature in build_reference({}, {}, inputs=train).features
    }


@pytest.mark.parametrize(("name", "world"), [("winding", None), ("vibration", None), *((n, w) for n, w, _ in SHIFTED)])
def test_samples_are_as_the_schema_says_also_where_the_world_moved(tmp_path, name, world):
    task = task_of(name)
    (spec,) = task.inputs
    for sample in served(source(tmp_path, name, world, **{KNOWN[name]: "1"}), 300):
        values = sample.inputs[spec.name]
        assert (values.shape, values.dtype, list(sample.inputs)) == (spec.shape, np.dtype(spec.dtype), [spec.name])
        assert np.isfinite(values).all()
        assert spec.minimum <= values.min() <= values.max() <= spec.maximum
        rows = {output: value[None] for output, value in as_given(sample.target_value).items()}
        (wanted,) = as_declared(task.answers, rows, 1).values()
        assert next(iter(task.answers.values())).target_mistakes(wanted) == []


@pytest.mark.parametrize("name", KNOWN)
def test_a_device_sees_what_its_name_draws_and_another_one_something_else(tmp_path, name):
    first, again, other = (inputs_of(served(source(tmp_path, name, device=device), 40)) for device in ("a", "a", "b"))
    for key, values in first.items():
        np.testing.assert_array_equal(values, again[key])
        assert not np.isin(other[key], values).all()


@pytest.mark.parametrize("name", KNOWN)
def test_a_world_that_holds_is_like_the_training_data(tmp_path, name):
    assert max(effects(name, served(source(tmp_path, name), 1000)).values()) < DriftPlan().minimum_effect_js / 2


@pytest.mark.parametrize(("name", "world", "feature"), SHIFTED)
def test_a_world_that_moved_is_twice_as_far_from_it_as_an_alert_asks_for(tmp_path, name, world, feature):
    found = effects(name, served(source(tmp_path, name, world), 1000))
    assert found[feature] > 2 * DriftPlan().minimum_effect_js


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize(("share", "least", "most"), [("0", 0, 0), ("0.25", 190, 310), ("1", 1000, 1000)])
def test_as_many_target_values_are_known_as_is_asked_for(tmp_path, name, share, least, most):
    samples = served(source(tmp_path, name, **{KNOWN[name]: share}), 1000)
    assert least <= sum(sample.target_value is not None for sample in samples) <= most


@pytest.mark.parametrize("name", KNOWN)
def test_what_is_known_comes_to_be_learned_from_right_after_it_was_served_and_nothing_else_does(tmp_path, name):
    before, learned, known = None, 0, 0
    for sample in islice(source(tmp_path, name, **{KNOWN[name]: "0.5"}), 400):
        if sample.use == "learn":
            assert sample.target_value is not None
            assert sample.target_value is before.target_value
            assert sample.inputs == before.inputs
            learned += 1
        elif before is not None:
            known += before.use == "serve" and before.target_value is not None
        before = sample
    assert (learned, known) == (pytest.approx(133, abs=25), 0)


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("world", ["", "{", "[]", "null", '{"condition": "sunny"}', '{"gain": "much"}', '{"gain": -1}'])
def test_a_world_that_says_nothing_known_is_the_first_one(tmp_path, name, world):
    found, plain = (served(source(tmp_path / part, name, said), 20) for part, said in (("a", world), ("b", None)))
    for first, second in zip(found, plain, strict=True):
        assert first.target_value == second.target_value
        for key, values in first.inputs.items():
            np.testing.assert_array_equal(values, second.inputs[key])


def test_a_fault_is_judged_anomalous_from_the_next_window_on_and_no_longer_once_it_is_mended(tmp_path):
    samples = source(tmp_path, "vibration", judged="1")
    told = [sample.target_value for sample in served(samples, 5)]
    (tmp_path / "world.json").write_text('{"condition": "loose"}')
    told += [sample.target_value for sample in served(samples, 5)]
    (tmp_path / "world.json").unlink()
    told += [sample.target_value for sample in served(samples, 5)]
    assert told == [0] * 5 + [1] * 5 + [0] * 5


def test_a_sensor_that_sits_elsewhere_sees_more_of_a_pump_that_is_judged_normal(tmp_path):
    samples = source(tmp_path, "vibration", judged="1", gain="2")
    before = served(samples, 100)
    (tmp_path / "world.json").write_text('{"gain": 100}')
    after = served(samples, 100)
    loudest = np.abs(inputs_of(before)["vibration"]).max(axis=1)
    assert np.abs(inputs_of(after)["vibration"]).max(axis=1).min() > 10 * np.median(loudest)
    assert {sample.target_value for sample in before + after} == {0}


def test_behind_a_blocked_fan_the_same_motor_at_the_same_work_is_hotter_after_five_hours():
    drives = load_source(f"{EXAMPLES / 'winding' / 'motor.py'}:drives")
    free, blocked = (drives(20, 600, np.random.default_rng(3), blocked_fan=value) for value in (False, True))
    np.testing.assert_array_equal(free[0][..., [0, 1, 3]], blocked[0][..., [0, 1, 3]])
    # Air that is warmer than a case heats it, through a free fan sooner.
    assert (blocked[1] - free[1]).min() > -0.1
    assert (blocked[1] - free[1])[:, -1].min() > 5
