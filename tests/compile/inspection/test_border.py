"""A file's inputs and outputs, as the file itself names them."""

import pytest

from hedgerow.compile.inspection.border import read_border
from hedgerow.errors import DecodeError
from hedgerow.manifest.content import Tensor

pytestmark = pytest.mark.heavy


def file(dtype: str, scale: float) -> bytes:
    """Return a TFLite file of one operator, whose one tensor is its input and its output."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    tensor, graph, model = schema.TensorT(), schema.SubGraphT(), schema.ModelT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = "x", [1, 4], getattr(schema.TensorType, dtype), 0
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [3]
    operator, code = schema.OperatorT(), schema.OperatorCodeT()
    operator.inputs, operator.outputs = [0], [0]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.RELU
    graph.tensors, graph.inputs, graph.outputs, graph.operators = [tensor], [0], [0], [operator]
    model.version, model.buffers, model.subgraphs, model.operatorCodes = 3, [schema.BufferT()], [graph], [code]
    builder = flatbuffers.Builder(256)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize("dtype", ["INT8", "UINT8", "INT16", "INT32"])
def test_an_integer_with_a_scale_is_quantized(dtype):
    assert read_border("tflite", file(dtype, 0.5)) == ((Tensor("x", "x", (1, 4), dtype.lower(), 0.5, 3),),) * 2


@pytest.mark.parametrize("dtype", ["FLOAT32", "FLOAT16", "INT64"])
def test_a_scale_beside_a_type_that_stores_values_as_they_are_means_nothing(dtype):
    assert read_border("tflite", file(dtype, 0.5)) == ((Tensor("x", "x", (1, 4), dtype.lower()),),) * 2


def test_a_scale_of_zero_means_nothing():
    assert read_border("tflite", file("INT8", 0.0)) == ((Tensor("x", "x", (1, 4), "int8"),),) * 2


def several_scales(kind: str) -> bytes:
    """Return a file whose input has a scale for each of its four numbers."""
    from tools.operator_tables.tflite_model import TfliteModel

    model = TfliteModel()
    graph = model.graph()
    taken = graph.tensor(kind, (1, 4), scale=[0.1, 0.2, 0.3, 0.4], axis=1)
    given = graph.tensor(kind, (1, 4))
    graph.operator("ABS", [taken], [given])
    graph.record.inputs, graph.record.outputs = [taken], [given]
    return model.content()


@pytest.mark.parametrize("kind", ["INT8", "INT16"])
def test_an_input_with_a_scale_for_each_channel_is_refused_and_no_bug_of_ours(kind):
    with pytest.raises(DecodeError) as caught:
        read_border("tflite", several_scales(kind))
    assert caught.value.expected == "one scale of the whole tensor 'main/0', which callers fill"
    assert caught.value.found == "4"


def test_scales_beside_floats_mean_nothing_however_many_there_are():
    [taken], _ = read_border("tflite", several_scales("FLOAT32"))
    assert (taken.dtype, taken.scale) == ("float32", None)


def test_a_file_whose_first_signature_is_of_another_graph_is_refused_by_its_name():
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    from tests.compile.foreign_models import signed_tflite

    model = schema.ModelT.InitFromPackedBuf(signed_tflite(), 0)
    model.subgraphs = model.subgraphs * 2
    model.signatureDefs[0].signatureKey, model.signatureDefs[0].subgraphIndex = "train", 1
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    with pytest.raises(DecodeError) as caught:
        read_border("tflite", bytes(builder.Output()))
    assert caught.value.found == "'train' of subgraph 1"
