import pytest

from hedgerow.compile import Budget
from hedgerow.compile.recipes import find_recipe


def test_without_floors_of_its_own_a_budget_leaves_a_recipe_as_it_is():
    recipe = find_recipe("onnx-int8-s8s8")
    assert Budget().applied_to(recipe) == recipe


def test_floors_replace_what_a_recipe_promises_and_nothing_else():
    recipe = find_recipe("onnx-int8-s8s8")
    changed = Budget(minimum_snr_db=7.5, minimum_agreement=0.0).applied_to(recipe)
    assert (changed.minimum_snr_db, changed.minimum_agreement) == (7.5, 0.0)
    before, after = recipe.to_record(), changed.to_record()
    assert {name for name in before if before[name] != after[name]} == {"minimum_snr_db", "minimum_agreement"}


@pytest.mark.parametrize(
    ("change", "mistake"),
    [
        ({"max_drop": -0.01}, "expected a max_drop between 0 and 1, found -0.01"),
        ({"max_drop": 1.5}, "expected a max_drop between 0 and 1, found 1.5"),
        ({"max_drop": float("nan")}, "expected a max_drop between 0 and 1, found nan"),
        ({"minimum_snr_db": -1.0}, "expected a minimum_snr_db between 0 and 200, found -1.0"),
        ({"minimum_snr_db": 201.0}, "expected a minimum_snr_db between 0 and 200, found 201.0"),
        ({"minimum_agreement": 95.0}, "expected a minimum_agreement between 0 and 1, found 95.0"),
        ({"limit_s": 0.0}, "expected a limit_s above 0, at most a week, found 0.0"),
        ({"limit_s": float("inf")}, "expected a limit_s above 0, at most a week, found inf"),
        ({"limit_s": float("nan")}, "expected a limit_s above 0, at most a week, found nan"),
    ],
)
def test_a_senseless_budget_is_refused(change, mistake):
    with pytest.raises(ValueError, match="expected") as caught:
        Budget(**change)
    assert str(caught.value) == mistake
