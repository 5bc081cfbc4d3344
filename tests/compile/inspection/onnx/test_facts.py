import numpy as np
import pytest

onnx = pytest.importorskip("onnx")


from hedgerow.compile.inspection.model import format_of, read_facts  # noqa: E402
from hedgerow.errors import DecodeError  # noqa: E402
from tests.compile.inspection.onnx.files import BIAS, CONV, RELU, WEIGHT, convolution  # noqa: E402

pytestmark = pytest.mark.heavy


def test_a_float_convolution_is_counted_for_one_sample():
    content = convolution([CONV, RELU], {"w": WEIGHT, "b": BIAS})
    facts = read_facts(format_of(content), content, {"x": (1, 3, 8, 8)})
    assert facts.macs == 4 * 8 * 8 * 3 * 3 * 3
    assert facts.parameters == 4 * 27 + 4
    assert facts.weights_bytes_by_bits == {32: 4 * (4 * 27 + 4)}
    assert facts.tensor_bytes == {"x": 768, "c": 1024, "y": 1024}
    assert [(op.name, op.inputs, op.outputs) for op in facts.graph] == [
        ("Conv", ("x",), ("c",)),
        ("Relu", ("c",), ("y",)),
    ]
    assert facts.operator_versions == {"Conv": 17, "Relu": 17}
    assert (facts.inputs, facts.outputs) == (("x",), ("y",))
    assert not facts.dynamic_shapes


def test_a_dimension_other_than_the_batch_that_is_open_is_dynamic():
    content = convolution([CONV, RELU], {"w": WEIGHT, "b": BIAS}, taken=(1, 3, "h", 8), given=(1, 4, "h", 8))
    assert read_facts("onnx", content).dynamic_shapes


def test_a_damaged_file_is_read_or_refused_and_nothing_else():
    good = convolution([CONV, RELU], {"w": WEIGHT, "b": BIAS})
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        content = bytearray(good)
        for place in rng.integers(0, len(content), rng.integers(1, 12)):
            content[place] = rng.integers(0, 256)
        try:
            read_facts("onnx", bytes(content[: rng.integers(1, len(content) + 1)]))
        except DecodeError:
            refused += 1
    assert refused > 100
