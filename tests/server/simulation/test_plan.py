"""Settings that contradict themselves are refused before any work; what is left open is the task's."""

import pytest

from hedgerow.errors import DecodeError, UnknownNameError
from hedgerow.local_work import LocalWork
from hedgerow.server.simulation.device_model import DeviceModel
from hedgerow.server.simulation.errors import SimulationError
from hedgerow.server.simulation.plan import SimulationPlan
from hedgerow.task import LocalTraining


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"momentum": 1.0}, "momentum of at least 0 and below 1, found 1"),
        ({"momentum": 0.5, "optimizer": "adam"}, "momentum with sgd alone"),
        ({"weight_decay": -1.0}, "weight decay"),
        ({"cohort": 0}, "at least one client"),
        ({"strategy": "fedbuff"}, "a device model for the asynchronous strategy fedbuff, found none"),
        ({"strategy": "fedbuff", "devices": DeviceModel(deadline_s=9.0)}, "which has no rounds, found a deadline"),
        ({"strategy": "fedbuff", "devices": DeviceModel(), "buffer": 11}, "a buffer of 1 to 10 updates"),
        ({"buffer": 5}, "a buffer with the strategy fedbuff alone, found it with fedavg"),
        ({"devices": DeviceModel(wait_for=11)}, "at most the cohort's 10 clients to wait for, found 11"),
    ],
)
def test_contradictions_are_refused(settings, sentence):
    with pytest.raises(SimulationError, match=sentence):
        SimulationPlan(**settings).check()


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(UnknownNameError, match="did you mean 'adam'"):
        SimulationPlan(optimizer="adamw").check()


def test_local_steps_are_the_tasks_where_nothing_else_is_said():
    task = LocalTraining(learning_rate=0.3, batch_size=8, epochs=2)

    assert SimulationPlan(seed=4).work(task) == LocalWork(learning_rate=0.3, batch_size=8, epochs=2, seed=4)
    more = SimulationPlan(epochs=5, momentum=0.9, weight_decay=0.01)
    assert more.work(task) == LocalWork(
        learning_rate=0.3, batch_size=8, epochs=5, momentum=0.9, weight_decay=0.01, optimizer="sgd"
    )
    with pytest.raises(SimulationError, match="learning_rate must lie between"):
        SimulationPlan(learning_rate=-1.0).work(task)


def test_a_hundred_evaluations_and_the_last_round():
    plan = SimulationPlan(rounds=1501)

    assert sum(plan.evaluates(number) for number in range(1, 1502)) == 101
    assert plan.evaluates(1501)
    assert [n for n in range(1, 11) if SimulationPlan(rounds=10, evaluate_every=4).evaluates(n)] == [4, 8, 10]


def test_a_device_model_says_what_it_is(tmp_path):
    trace = tmp_path / "trace.csv"
    trace.write_text("device,start_s,end_s\na,0,3600\n")

    settings = DeviceModel(trace=trace, deadline_s=5.0, diurnal=True).to_settings()

    assert settings["population"] == "phones"
    assert settings["deadline_s"] == 5.0
    assert len(settings["trace_sha256"]) == 64
    assert DeviceModel().to_settings() == {"population": "phones", "drop_out": 0.0}


def test_a_device_model_makes_its_population(tmp_path):
    trace = tmp_path / "trace.csv"
    trace.write_text("device,start_s,end_s\na,0,3600\n")

    mixed = DeviceModel(mix="raspberry-pi-4:0.5,android-arm64:0.5", drop_out=0.1).population(100, 3)

    assert sorted(kind.name for kind in mixed.kinds) == ["android-arm64", "raspberry-pi-4"]
    assert (len(mixed), mixed.seed, mixed.drop_out) == (100, 3, 0.1)
    assert len(DeviceModel(trace=trace).population(10, 0)) == 10
    assert DeviceModel(deadline_s=4.0, wait_for=2).policy().wanted == 2


def test_what_is_no_device_model_is_refused(tmp_path):
    with pytest.raises(UnknownNameError, match="target"):
        DeviceModel(mix="raspberry-pi-44").population(10, 0)
    with pytest.raises(DecodeError, match="a file with a trace of availability, found none"):
        DeviceModel(trace=tmp_path / "none.csv").population(10, 0)
    with pytest.raises(SimulationError, match="a deadline above 0"):
        DeviceModel(deadline_s=0.0).policy()
