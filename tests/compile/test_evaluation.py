import numpy as np
import pytest

from hedgerow.compile.evaluation import baseline, evaluate
from hedgerow.compile.fairness import measure_fairness
from hedgerow.outputs import Classes, Custom, Outputs, Reconstruction, Values
from hedgerow.task import Dataset

# pandas, which fairlearn uses, announces a change of its own defaults.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def evaluated(names, probabilities, data, subgroup=None):
    outputs = Outputs.of(Classes(tuple(names)))
    return evaluate(outputs, {"probabilities": probabilities}, {"probabilities": data.target_values}, data, subgroup)


def dataset(labels, groups=None) -> Dataset:
    labels = np.array(labels, np.int64)
    columns = {} if groups is None else {"hand": np.array(groups)}
    return Dataset({"x": np.zeros((len(labels), 1), np.float32)}, labels, columns)


def test_precision_recall_and_confusion_of_each_class():
    probabilities = np.eye(3)[[0, 0, 1, 1]]
    found = evaluated(("a", "b", "c"), probabilities, dataset([0, 1, 1, 1]))
    assert found["confusion"] == [[1, 0, 0], [1, 2, 0], [0, 0, 0]]
    assert found["classes"] == [
        {"name": "a", "support": 1, "precision": 0.5, "recall": 1.0},
        {"name": "b", "support": 3, "precision": 1.0, "recall": 0.666667},
        {"name": "c", "support": 0, "precision": None, "recall": None},
    ]
    assert found["subgroups"] == []
    assert found["fairness"] == {}


def test_too_many_classes_get_no_table():
    found = evaluated([str(n) for n in range(101)], np.eye(101)[:2], dataset([0, 1]))
    assert found["classes"] == found["confusion"] == []


@pytest.mark.heavy
def test_subgroups_are_compared():
    """The left-handed get class 1 for 1 of 2 and the others for 2 of 2; of true 1s, 1 of 1 and 1 of 1."""
    probabilities = np.eye(2)[[0, 1, 1, 1]]
    found = evaluated(("no", "yes"), probabilities, dataset([0, 1, 1, 0], ["left", "left", "right", "right"]), "hand")
    assert found["subgroups"] == [
        {"name": "left", "samples": 2, "accuracy": 1.0},
        {"name": "right", "samples": 2, "accuracy": 0.5},
    ]
    (row,) = found["fairness"]["classes"]
    assert row == {"name": "yes", "demographic_parity_difference": 0.5, "equalized_odds_difference": 1.0}
    assert found["fairness"]["largest_demographic_parity_difference"] == 0.5


@pytest.mark.heavy
def test_each_of_several_classes_is_compared_with_the_rest():
    truth = np.array([0, 1, 2, 0, 1, 2])
    found = measure_fairness(("a", "b", "c"), truth, truth, np.array(["x", "x", "x", "y", "y", "y"]))
    assert [row["name"] for row in found["classes"]] == ["a", "b", "c"]
    assert found["largest_equalized_odds_difference"] == 0.0


def test_one_group_has_nothing_to_be_compared_with():
    assert measure_fairness(("a", "b"), np.array([0, 1]), np.array([0, 1]), np.array(["x", "x"])) == {}


LEVEL = Outputs.of(Values(("level",), tolerance=2.0))


def test_a_regression_has_its_own_metrics_and_no_table_of_classes():
    wanted = {"values": np.array([[0.0], [2.0], [4.0], [np.nan]], np.float32)}
    answers = {"values": np.array([[1.0], [2.0], [4.0], [9.0]], np.float32)}
    data = Dataset({"x": np.zeros((4, 1), np.float32)}, None, {"hand": np.array(["l", "l", "r", "r"])})
    found = evaluate(LEVEL, answers, wanted, data, "hand")
    assert found["classes"] == found["confusion"] == []
    assert found["fairness"] == {}
    assert found["metrics"]["score"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert found["metrics"]["mae_tolerances"] == pytest.approx(1 / 6)
    assert found["metrics"]["r2"] == pytest.approx(1 - 1 / 8)
    assert found["subgroups"] == [
        {"name": "l", "samples": 2, "score": 0.75},
        {"name": "r", "samples": 2, "score": 1.0},
    ]


def test_what_looks_at_nothing_is_measured_on_the_same_samples():
    trained_on = {"values": np.array([[1.0], [2.0], [3.0], [np.nan]], np.float32)}
    found = baseline(LEVEL, trained_on, {"values": np.array([[2.0], [4.0], [np.nan]], np.float32)})
    assert found["said"] == "always the median"
    assert found["metrics"]["score"] == 0.5


def test_there_is_no_baseline_where_target_values_are_not_known():
    nothing, some = {"values": np.full((3, 1), np.nan, np.float32)}, {"values": np.ones((3, 1), np.float32)}
    assert baseline(LEVEL, nothing, some) is None
    assert baseline(LEVEL, some, nothing) is None
    ones = {"output": np.ones(3, np.float32)}
    assert baseline(Outputs.of(Custom((1,))), ones, ones) is None


def test_an_anomaly_detector_beats_what_flags_nothing_and_a_share_of_nothing_is_left_out():
    outputs = Outputs.of(Reconstruction(threshold=1.0))
    unknown = {"anomaly": np.array([-1, -1])}
    found = baseline(outputs, unknown, {"anomaly": np.array([0, 0, -1])})
    assert found == {
        "said": "never flagging anything",
        "metrics": {"score": 1.0, "false_alarm_rate": 0.0},
    }


def test_of_several_outputs_each_class_says_whose_it_is():
    outputs = Outputs({"kind": Classes(("a", "b")), "state": Classes(("on", "off"))})
    wanted = {"kind": np.array([0, 1]), "state": np.array([1, -1])}
    answers = {"kind": np.eye(2), "state": np.eye(2)}
    found = evaluate(outputs, answers, wanted, dataset([0, 1]), None)
    assert [(row["name"], row["support"]) for row in found["classes"]] == [
        ("kind: a", 1),
        ("kind: b", 1),
        ("state: on", 0),
        ("state: off", 1),
    ]
    assert found["confusion"] == []
    assert found["metrics"]["score"] == 0.5
