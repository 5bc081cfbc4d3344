"""One network in three formats is one network: ResNet-8 has the parameters and multiplications of MLPerf Tiny's."""

import pytest

torch = pytest.importorskip("torch")

from hedgerow.compile.inspection.coreml import specification_version  # noqa: E402 - needs torch
from hedgerow.compile.inspection.model import format_of, read_facts  # noqa: E402
from hedgerow.compile.mlpackage import pack  # noqa: E402
from hedgerow.compile.passes.coreml.export import ExportCoreml  # noqa: E402
from hedgerow.compile.passes.coreml.palettize import PalettizeCoreml  # noqa: E402
from hedgerow.compile.passes.coreml.quantize_weights import QuantizeCoremlWeights  # noqa: E402
from hedgerow.compile.passes.onnx.export import ExportOnnx  # noqa: E402
from hedgerow.compile.passes.runner import run_file_pass  # noqa: E402
from hedgerow.compile.passes.tflite.export import ExportTflite  # noqa: E402
from hedgerow.errors import DecodeError  # noqa: E402
from tests.compile.nets import make_source, resnet8  # noqa: E402

pytestmark = [
    pytest.mark.heavy,
    # Converters and their dependencies call deprecated parts of each other.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    # coremltools 9 leaves temporary files to the collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

PARAMETERS, MACS = 77_706, 12_501_632


@pytest.fixture(scope="module")
def source():
    return make_source(resnet8)


@pytest.fixture(scope="module")
def package(source):
    return run_file_pass(ExportCoreml(minimum_version="iOS17"), source, None)


@pytest.mark.parametrize("export", [ExportOnnx, ExportTflite])
def test_a_float_file_holds_what_the_network_has(export, source):
    stage = run_file_pass(export(), source, None)
    assert format_of(stage.content) == stage.format
    facts = read_facts(stage.format, stage.content, {stage.inputs[0].tensor: (1, *stage.inputs[0].shape[1:])})
    assert (facts.parameters, facts.macs) == (PARAMETERS, MACS)
    assert facts.weights_bytes_by_bits == {32: 4 * PARAMETERS}
    assert facts.quantized_share == 0
    assert facts.border_types == {"float32"}


def test_a_core_ml_package_holds_what_the_network_has_in_half_the_bytes(package):
    assert format_of(package.content) == "mlpackage"
    facts = read_facts("mlpackage", package.content)
    assert (facts.parameters, facts.macs) == (PARAMETERS, MACS)
    assert facts.weights_bytes_by_bits == {16: 2 * PARAMETERS}
    assert facts.quantized_share == 0
    assert facts.number_types >= {"float16", "float32"}
    assert set(facts.operator_versions.values()) == {17}
    assert specification_version(package.content) == 8
    assert {"const", "conv"} <= facts.operators
    assert not any(operator.name == "const" for operator in facts.graph)


def test_compressed_core_ml_weights_are_counted_in_the_bits_they_are_stored_in(source, package):
    int8 = read_facts("mlpackage", run_file_pass(QuantizeCoremlWeights(minimum_elements=64), source, package).content)
    assert (int8.parameters, int8.macs) == (PARAMETERS, MACS)
    assert int8.quantized_share > 0.99
    assert int8.weights_bytes_by_bits[8] == pytest.approx(PARAMETERS, rel=0.01)
    palette = read_facts(
        "mlpackage", run_file_pass(PalettizeCoreml(bits=4, minimum_elements=64), source, package).content
    )
    assert palette.quantized_share > 0.99
    assert palette.weights_bytes_by_bits[4] == pytest.approx(PARAMETERS / 2, rel=0.01)


def test_a_package_without_a_specification_is_refused(tmp_path):
    (tmp_path / "Manifest.json").write_text('{"itemInfoEntries": {"a": {"path": "b"}}, "rootModelIdentifier": "a"}')
    with pytest.raises(DecodeError, match="one specification"):
        read_facts("mlpackage", pack(tmp_path))
    with pytest.raises(DecodeError, match="the format onnx, tflite or mlpackage"):
        read_facts("gguf", b"")
