"""A size that a TFLite file leaves open is unknown, with the place that leaves it open."""

import pytest

from hedgerow.compile.inspection.model import read_facts

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="session")
def opened(own_int8_file) -> bytes:
    """ResNet-8 with the height of its input left open."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    parsed = schema.ModelT.InitFromPackedBuf(own_int8_file, 0)
    graph = parsed.subgraphs[0]
    tensor = graph.tensors[graph.inputs[0]]
    tensor.shapeSignature = [int(size) for size in tensor.shape]
    tensor.shapeSignature[2] = -1
    builder = flatbuffers.Builder(1024)
    builder.Finish(parsed.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_an_open_dimension_of_a_tflite_file_is_unknown_and_the_size_in_its_place_means_nothing(opened, own_int8_file):
    assert read_facts("tflite", own_int8_file).open_sizes == ()
    facts = read_facts("tflite", opened)
    [named] = facts.open_sizes
    assert named.startswith("the dimension 2 of the input ")
    assert facts.macs is None


def test_a_given_shape_of_a_tflite_file_is_resolved_by_litert(opened, own_int8_file):
    wanted = read_facts("tflite", own_int8_file)
    [name] = [each.partition(":")[2] for each in wanted.inputs]
    facts = read_facts("tflite", opened, {name: (1, 3, 32, 32)})
    assert (facts.open_sizes, facts.macs) == ((), wanted.macs)
    assert facts.tensor_bytes == wanted.tensor_bytes
