"""What a sweep varies is read from short words, and what cannot be varied is said at once."""

from pathlib import Path

import pytest

from hedgerow.errors import PartitionError, UnknownNameError
from hedgerow.partition import Partition
from hedgerow.server.simulation.device_model import DeviceModel
from hedgerow.server.simulation.errors import SimulationError
from hedgerow.server.simulation.plan import SimulationPlan
from hedgerow.server.simulation.variations import (
    VARIABLE,
    Span,
    Variation,
    grid_of,
    named,
    parse_variations,
    plan_with,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("learning-rate=0.01,0.1", Variation("learning-rate", (0.01, 0.1))),
        ("learning_rate=1", Variation("learning-rate", (1.0,))),
        ("learning-rate=log:0.001..1", Variation("learning-rate", span=Span(0.001, 1.0, logarithmic=True))),
        ("momentum=0..0.9", Variation("momentum", span=Span(0.0, 0.9))),
        ("epochs=1..5", Variation("epochs", span=Span(1, 5))),
        ("seed=0..3", Variation("seed", (0, 1, 2, 3))),
        ("seed=4,4,7", Variation("seed", (4, 7))),
        ("strategy=fedavg,fedadam", Variation("strategy", ("fedavg", "fedadam"))),
        (
            "strategy=fedavg;fedavg+client-fixed:clip=1,noise=0.5",
            Variation("strategy", ("fedavg", "fedavg+client-fixed:clip=1,noise=0.5")),
        ),
        ("partition=iid,dirichlet:0.1", Variation("partition", ("iid", "dirichlet:0.1"))),
    ],
)
def test_a_setting_is_read(text, expected):
    assert parse_variations([text]) == (expected,)


@pytest.mark.parametrize(
    "text",
    ["epochs", "epochs=", "epochs=1,,2", "epochs=1.5", "epochs=5..1", "learning-rate=log:0..1", "momentum=nan",
     "seed=0..10000000", "learning-rate=0.1..0.2..0.3"],
)  # fmt: skip
def test_a_malformed_setting_is_answered_with_an_example(text):
    with pytest.raises(SimulationError, match="expected values to vary as in --vary"):
        parse_variations([text])


def test_unknown_and_repeated_settings_are_refused():
    with pytest.raises(UnknownNameError, match="did you mean 'learning-rate'"):
        parse_variations(["learningrate=1"])
    with pytest.raises(SimulationError, match="seed twice"):
        parse_variations(["seed=1", "seed=2"])


def test_a_grid_is_every_combination():
    grid = list(grid_of(parse_variations(["learning-rate=0.1,1", "epochs=1,2"])))

    assert grid == [
        {"learning-rate": 0.1, "epochs": 1},
        {"learning-rate": 0.1, "epochs": 2},
        {"learning-rate": 1.0, "epochs": 1},
        {"learning-rate": 1.0, "epochs": 2},
    ]
    assert list(grid_of([])) == [{}]


def test_choices_are_named_the_same_in_any_order():
    assert named({"learning-rate": 0.1, "epochs": 2}) == named({"epochs": 2, "learning-rate": 0.1})
    assert named({"epochs": 2, "learning-rate": 0.1}) == "epochs=2,learning-rate=0.1"
    assert named({}) == "as-given"


def test_names_are_one_part_of_a_path():
    assert Path(named({"partition": "column:../x"})).parts == ("partition=column:..%2Fx",)
    long = [named({"partition": f"column:{'x' * 300}{end}"}) for end in "ab"]
    assert max(map(len, long)) < 250
    assert long[0] != long[1]


def test_every_variable_changes_the_plan():
    plan = SimulationPlan(devices=DeviceModel(), partition=Partition())
    values = {str: {"partition": "shards:3", "strategy": "krum", "optimizer": "adam"}, int: 7, float: 0.5}
    for name, kind in VARIABLE.items():
        value = values[kind][name] if kind is str else values[kind]
        assert plan_with(plan, {name: value}) != plan
    assert plan_with(plan, {"deadline": 9.0}).devices == DeviceModel(deadline_s=9.0)
    assert plan_with(plan, {"partition": "shards:3"}).partition == Partition("shards", shards_per_client=3)


def test_values_that_make_no_plan_are_refused():
    with pytest.raises(SimulationError, match="add --population phones"):
        plan_with(SimulationPlan(), {"deadline": 1.0})
    with pytest.raises(PartitionError):
        plan_with(SimulationPlan(), {"partition": "shards:x"})
