"""One ONNX file of two: what the first gives is what the second takes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import onnx
from onnx import compose, version_converter
from onnxruntime.quantization.onnx_model import ONNXModel

from hedgerow.compile.pass_models import CompiledModel
from hedgerow.compile.passes.onnx.trim import trimmed_onnx

__all__ = ["joined_onnx"]

_PREFIX, _INNER = "prepare.", "model."


def joined_onnx(first: CompiledModel, second: CompiledModel) -> CompiledModel:
    """Return the file that runs *second* on what *first* gives.

    Args:
        first: A float file.
        second: A file whose inputs have the names of *first*'s outputs, or are state, which goes past the first;
            an operator set of its own is brought to it.

    Raises:
        RuntimeError: An operator of *first* cannot be written in *second*'s operator set.
    """
    before, after = (onnx.load_model_from_string(stage.content) for stage in (first, second))
    wanted = _operator_set(after)
    if _operator_set(before) != wanted:
        before = version_converter.convert_version(before, wanted)
    before.ir_version = after.ir_version
    # Converters append casts behind what they feed; runtimes sort for themselves, the checker of a joint file does not.
    ONNXModel(after).topological_sort()
    # Inner names of the two may be the same; those of the border are the callers'.
    inner = {"rename_inputs": False, "rename_outputs": False, "rename_functions": False}
    before = compose.add_prefix(before, _PREFIX, rename_value_infos=False, **inner)
    del before.graph.value_info[:]
    # An argument of the model's own may be called as an input of the task is.
    if _inner_names(after) & {entry.name for entry in (*before.graph.input, *before.graph.output)}:
        after = compose.add_prefix(after, _INNER, rename_value_infos=True, **inner)
    known = {tensor.name for tensor in first.outputs}
    carried = tuple(tensor for tensor in second.inputs if tensor.name not in known)
    links = [(given.tensor, taken.tensor) for given, taken in _pairs(first, second)]
    model = compose.merge_models(before, after, io_map=links, producer_name=after.producer_name)
    model.graph.name = after.graph.name
    return replace(
        second, content=trimmed_onnx(model.SerializeToString(deterministic=True)), inputs=(*first.inputs, *carried)
    )


def _inner_names(model: Any) -> set[str]:
    """Return the names of what a graph computes and holds between its border."""
    border = {entry.name for entry in (*model.graph.input, *model.graph.output)}
    named = {name for node in model.graph.node for name in (*node.input, *node.output)}
    return (named | {entry.name for entry in (*model.graph.value_info, *model.graph.initializer)}) - border


def _operator_set(model: Any) -> int:
    """Return the version of ONNX's own operator set that a model imports."""
    return max(int(entry.version) for entry in model.opset_import if entry.domain in {"", "ai.onnx"})


def _pairs(first: CompiledModel, second: CompiledModel) -> Sequence[tuple[Any, Any]]:
    given = {tensor.name: tensor for tensor in first.outputs}
    return [(given[taken.name], taken) for taken in second.inputs if taken.name in given]
