"""Tests of hedgerow.server.weights.fit."""

from pathlib import Path

import numpy as np
import pytest

from hedgerow.server.weights.errors import WeightsFileError, WeightsMisfitError
from hedgerow.server.weights.fit import fit_weights
from hedgerow.server.weights.weights_file import WeightsFile

WANTED = {
    "0.weight": np.zeros((3, 2), np.float32),
    "0.bias": np.zeros(3, np.float32),
    "1.count": np.zeros((), np.int64),
}
OWN = {
    "0.weight": np.arange(6, dtype=np.float32).reshape(3, 2),
    "0.bias": np.ones(3, np.float32),
    "1.count": np.array(7),
}


def fit(arrays, wanted=WANTED, tied=(), **facts):
    return fit_weights(WeightsFile(Path("m.pt"), arrays, **facts), "points", wanted, tied=tied)


def renamed(change):
    return {change(name): array for name, array in OWN.items()}


def test_weights_of_the_model_are_taken_as_they_are_without_a_note():
    found = fit(OWN)

    assert found.notes == ()
    assert found.arrays.keys() == OWN.keys()
    assert all(np.array_equal(found.arrays[name], OWN[name]) for name in OWN)


@pytest.mark.parametrize(
    ("change", "notes"),
    [
        (
            lambda name: f"module.{name}",
            ("taken off the names of 3 tensors: 'module', which DataParallel puts there",),
        ),
        (
            lambda name: f"_orig_mod.{name}",
            ("taken off the names of 3 tensors: '_orig_mod', which torch.compile puts there",),
        ),
        (
            lambda name: f"module._orig_mod.{name}",
            (
                "taken off the names of 3 tensors: 'module', which DataParallel puts there",
                "taken off the names of 3 tensors: '_orig_mod', which torch.compile puts there",
            ),
        ),
        (
            lambda name: name.replace("0.", "0._orig_mod."),
            ("taken off the names of 2 tensors: '_orig_mod', which torch.compile puts there",),
        ),
        (lambda name: f"net.{name}", ("taken off the names of 3 tensors: the prefix 'net'",)),
    ],
)
def test_what_wrappers_put_before_names_is_taken_off_and_said(change, notes):
    found = fit(renamed(change))

    assert found.notes == notes
    assert all(np.array_equal(found.arrays[name], OWN[name]) for name in OWN)


def test_a_model_that_has_a_module_of_that_name_keeps_it():
    wanted = {f"module.{name}": array for name, array in WANTED.items()}

    assert fit(renamed(lambda name: f"module.{name}"), wanted).notes == ()
    assert fit(renamed(lambda name: f"module.module.{name}"), wanted).notes == (
        "taken off the names of 3 tensors: the prefix 'module'",
    )


def test_other_names_and_shapes_are_all_named_at_once():
    arrays = {"0.weight": np.zeros((2, 3), np.float32), "0.bias": OWN["0.bias"], "fc.bias": OWN["0.bias"]}
    with pytest.raises(WeightsMisfitError) as caught:
        fit(arrays)

    assert str(caught.value) == (
        "expected the weights of the model of task 'points' in m.pt, found others: 1 missing (1.count), "
        "1 unexpected (fc.bias), 1 of another shape (0.weight is [3, 2], here [2, 3]); give the weights that this "
        "model was trained to, or let model() of the task make the one that they are of"
    )
    assert (caught.value.missing, caught.value.unexpected) == (("1.count",), ("fc.bias",))
    assert caught.value.shapes == {"0.weight": ((3, 2), (2, 3))}


def test_of_many_names_the_first_five_are_shown():
    with pytest.raises(WeightsMisfitError, match=r"7 unexpected \(a0, a1, a2, a3, a4 and 2 more\)"):
        fit({**OWN, **{f"a{number}": np.zeros(1, np.float32) for number in range(7)}})


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_floats_of_another_width_are_converted_and_said(dtype):
    found = fit({**OWN, "0.bias": np.full(3, 0.5, dtype)})

    assert found.arrays["0.bias"].dtype == np.float32
    assert found.arrays["0.bias"].tolist() == [0.5, 0.5, 0.5]
    assert found.notes == (f"converted from {dtype} to float32: 1 tensor, such as 0.bias",)


def test_what_was_bfloat16_in_the_file_is_said():
    found = fit(renamed(lambda name: f"module.{name}"), widened=frozenset({"module.0.bias"}), entry="model")

    assert found.notes == (
        "taken from the entry 'model' of the file",
        "taken off the names of 3 tensors: 'module', which DataParallel puts there",
        "converted from bfloat16 to float32: 1 tensor, such as 0.bias",
    )


@pytest.mark.parametrize(
    ("name", "array", "sentence"),
    [
        (
            "0.bias",
            np.array([1, np.nan, np.inf], np.float32),
            (
                "expected finite numbers in m.pt, found NaN or infinity in 1 tensor, such as 0.bias; give the "
                "weights of a training that did not diverge, and keep masks out of the state dict (persistent=False)"
            ),
        ),
        (
            "0.bias",
            np.array([1, 2, 3], np.int8),
            "expected numbers of float32 for 0.bias in m.pt, found int8; give float weights as they were trained",
        ),
        (
            "0.bias",
            np.array([1, 2, 1e300]),
            "expected numbers of float32 for 0.bias in m.pt, found some that it does not hold; scale the weights down",
        ),
        (
            "1.count",
            np.array(1.0, np.float32),
            "expected numbers of int64 for 1.count in m.pt, found float32; give float weights as they were trained",
        ),
    ],
)
def test_numbers_that_are_none_of_the_models_are_refused(name, array, sentence):
    with pytest.raises(WeightsFileError) as caught:
        fit({**OWN, name: array})
    assert str(caught.value) == sentence


def test_a_whole_number_of_another_width_stays_what_it_is_or_is_refused():
    assert fit({**OWN, "1.count": np.array(7, np.int32)}).arrays["1.count"].dtype == np.int64
    narrow = {**WANTED, "1.count": np.zeros((), np.uint8)}
    with pytest.raises(WeightsFileError, match=r"expected numbers of uint8 for 1\.count in m\.pt, found some"):
        fit({**OWN, "1.count": np.array(300)}, narrow)


def test_tied_tensors_that_the_file_holds_once_are_filled_and_two_different_ones_refused():
    wanted = {**WANTED, "head.bias": WANTED["0.bias"]}
    found = fit(OWN, wanted, tied=[["0.bias", "head.bias"]])

    assert found.arrays["head.bias"].tolist() == [1, 1, 1]
    assert found.notes == ("head.bias is 0.bias, as the model ties them",)
    with pytest.raises(WeightsFileError, match=r"expected one tensor as 0\.bias and head\.bias in m\.pt, found two; "):
        fit({**OWN, "head.bias": np.zeros(3, np.float32)}, wanted, tied=[["0.bias", "head.bias"]])
