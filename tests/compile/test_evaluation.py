import numpy as np
import pytest

from hedgerow.compile.evaluation import evaluate
from hedgerow.compile.fairness import measure_fairness
from hedgerow.task import Dataset

# pandas, which fairlearn uses, announces a change of its own defaults.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def dataset(labels, groups=None) -> Dataset:
    labels = np.array(labels, np.int64)
    columns = {} if groups is None else {"hand": np.array(groups)}
    return Dataset({"x": np.zeros((len(labels), 1), np.float32)}, labels, columns)


def test_precision_recall_and_confusion_of_each_class():
    probabilities = np.eye(3)[[0, 0, 1, 1]]
    found = evaluate(("a", "b", "c"), probabilities, dataset([0, 1, 1, 1]), None)
    assert found["confusion"] == [[1, 0, 0], [1, 2, 0], [0, 0, 0]]
    assert found["classes"] == [
        {"name": "a", "support": 1, "precision": 0.5, "recall": 1.0},
        {"name": "b", "support": 3, "precision": 1.0, "recall": 0.666667},
        {"name": "c", "support": 0, "precision": None, "recall": None},
    ]
    assert found["subgroups"] == []
    assert found["fairness"] == {}


def test_too_many_classes_get_no_table():
    found = evaluate([str(n) for n in range(101)], np.eye(101)[:2], dataset([0, 1]), None)
    assert found["classes"] == found["confusion"] == []


@pytest.mark.heavy
def test_subgroups_are_compared():
    """The left-handed get class 1 for 1 of 2 and the others for 2 of 2; of true 1s, 1 of 1 and 1 of 1."""
    probabilities = np.eye(2)[[0, 1, 1, 1]]
    found = evaluate(("no", "yes"), probabilities, dataset([0, 1, 1, 0], ["left", "left", "right", "right"]), "hand")
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
