"""Small ONNX files, for what reads them."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

WEIGHT = np.ones((4, 3, 3, 3), np.float32)
CONV = helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1])
RELU = helper.make_node("Relu", ["c"], ["y"])
BIAS = np.zeros(4, np.float32)
SQUARE = numpy_helper.from_array(np.ones((6, 3), np.float32), "w")


def convolution(nodes, constants, *, taken=("batch", 3, 8, 8), given=("batch", 4, 8, 8)) -> bytes:
    """Return a file of a graph from ``x`` to ``y``, by default around a convolution."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, taken)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, given)],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()


def product(taken, nodes=None, constants=(SQUARE,), *, given=None) -> bytes:
    """Return a file of a graph from ``x`` to ``y``, by default a product and a softmax behind it."""
    graph = helper.make_graph(
        nodes or [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Softmax", ["m"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, taken)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, given)],
        list(constants),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
