"""Core ML's recurrent operators, evaluated by reference, against their documented formulas in numpy."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
ct = pytest.importorskip("coremltools")

from coremltools.converters.mil import Builder as mb  # noqa: E402, N813 - needs coremltools, which calls it so

from hedgerow.compile.coreml_evaluation.evaluate import UnknownOperator, predict_coreml  # noqa: E402
from hedgerow.compile.passes.coreml.package import packed  # noqa: E402
from tests.compile.only import only  # noqa: E402

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]

STEPS, INPUTS, HIDDEN = 5, 3, 4
RNG = np.random.default_rng(0)
SERIES = RNG.normal(size=(6, STEPS, INPUTS)).astype(np.float32)


def drawn(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def evaluated(layer, output=0):
    """Return what a program of one layer gives for the series, batch first: (6, steps, hidden) or (6, 1, hidden)."""

    @mb.program(input_specs=[mb.TensorSpec(shape=(1, STEPS, INPUTS))], opset_version=ct.target.iOS15)
    def program(x):
        found = layer(mb.transpose(x=x, perm=[1, 0, 2]))
        found = found[output] if isinstance(found, tuple | list) else found
        return (
            mb.transpose(x=found, perm=[1, 0, 2], name="y")
            if output == 0
            else mb.expand_dims(x=found, axes=[1], name="y")
        )

    model = ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS15,
        compute_precision=ct.precision.FLOAT32,
        compute_units=ct.ComputeUnit.CPU_ONLY,
        skip_model_load=True,
    )
    return only(predict_coreml(packed(model), {"x": SERIES}))


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_a_gru_resets_before_it_adds_no_bias_of_its_own(direction):
    w, r, b = drawn(3 * HIDDEN, INPUTS), drawn(3 * HIDDEN, HIDDEN), drawn(3 * HIDDEN)
    start = drawn(1, HIDDEN)
    found = evaluated(
        lambda x: mb.gru(
            x=x, initial_h=start, weight_ih=w, weight_hh=r, bias=b, direction=direction, output_sequence=True
        )
    )
    (wr, wo, wz), (rr, ro, rz), (br, bo, bz) = np.split(w, 3), np.split(r, 3), np.split(b, 3)
    wanted, h = np.empty((6, STEPS, HIDDEN)), np.repeat(start, 6, 0)
    for step in range(STEPS) if direction == "forward" else reversed(range(STEPS)):
        x = SERIES[:, step]
        reset, update = sigmoid(x @ wr.T + h @ rr.T + br), sigmoid(x @ wz.T + h @ rz.T + bz)
        new = np.tanh(x @ wo.T + reset * (h @ ro.T) + bo)
        h = (1 - update) * new + update * h
        wanted[:, step] = h
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_plain_layer_has_its_activation_and_gives_its_last_step():
    w, r, start = drawn(HIDDEN, INPUTS), drawn(HIDDEN, HIDDEN), drawn(1, HIDDEN)
    found = evaluated(lambda x: mb.rnn(x=x, initial_h=start, weight_ih=w, weight_hh=r, activation="relu"))
    h = np.repeat(start, 6, 0)
    for step in range(STEPS):
        h = np.maximum(SERIES[:, step] @ w.T + h @ r.T, 0)
    np.testing.assert_allclose(found[:, 0], h, atol=1e-4)


@pytest.mark.parametrize("output", [1, 2], ids=["hidden", "memory"])
def test_an_lstm_of_two_ways_ends_with_the_states_of_both(output):
    w, r, b = drawn(2, 4 * HIDDEN, INPUTS), drawn(2, 4 * HIDDEN, HIDDEN), drawn(2, 4 * HIDDEN)
    starts = drawn(2, 1, 2 * HIDDEN)
    found = evaluated(
        lambda x: mb.lstm(
            x=x, initial_h=starts[0], initial_c=starts[1], weight_ih=w[0], weight_hh=r[0], bias=b[0],
            weight_ih_back=w[1], weight_hh_back=r[1], bias_back=b[1], direction="bidirectional",
            output_sequence=True,
        ),
        output,
    )  # fmt: skip
    wanted = []
    for way in range(2):
        part = slice(way * HIDDEN, (way + 1) * HIDDEN)
        h, c = (np.repeat(starts[place][:, part], 6, 0) for place in (0, 1))
        for step in range(STEPS) if way == 0 else reversed(range(STEPS)):
            taken, kept, shown, new = np.split(SERIES[:, step] @ w[way].T + h @ r[way].T + b[way], 4, 1)
            c = sigmoid(kept) * c + sigmoid(taken) * np.tanh(new)
            h = sigmoid(shown) * np.tanh(c)
        wanted.append((h, c)[output - 1])
    np.testing.assert_allclose(found[:, 0], np.concatenate(wanted, 1), atol=1e-5)


def test_peepholes_are_not_known():
    w, r, zeros = drawn(4 * HIDDEN, INPUTS), drawn(4 * HIDDEN, HIDDEN), np.zeros((1, HIDDEN), np.float32)
    found = evaluated(
        lambda x: mb.lstm(
            x=x, initial_h=zeros, initial_c=zeros, weight_ih=w, weight_hh=r, peephole=drawn(3 * HIDDEN),
            output_sequence=True,
        )
    )  # fmt: skip
    assert isinstance(found, UnknownOperator)
    assert found.names == ("lstm",)
