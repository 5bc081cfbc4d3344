"""What an export met that it cannot translate: the operator, the layer it belongs to, and the line that wrote it.

Exporters say this each in its own way, and often not at all. Known sentences are read; the layer is found in the
traceback where the model's own code was running, else in torch's own trace of the model.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hedgerow.blame import frames, is_library, is_ours

if TYPE_CHECKING:
    from torch import nn

    from hedgerow.compile.pass_models import FloatModel

__all__ = ["chain", "diagnose", "missing_operator"]

_OPERATORS = (
    r"No ONNX function found for <OpOverload\(op='\w+\.(\w+)'",
    r"Lowering not found: \w+\.(\w+)",
    r"Unsupported fx node (\w+)",
    r"[Tt]orch `(\w+)` op",
    r"convert function for op '(\w+)' not implemented",
    r"Didn't find op for builtin opcode '(\w+)'",
    r"^node \S+ \((\w+)\) got",
    r"Node number \d+ \(STABLEHLO_(\w+)\) failed to prepare",
    r"converter passes: [^\n]*\(\"(\w+)\"\)\)",
    r"Unsupported ir element type: (complex)<",
)
"""How torch.onnx, litert-torch, coremltools and LiteRT name what they cannot translate."""
_BY_VALUE = re.compile("data-dependent|DataDependent")
_FIXES_BATCH = re.compile("Constraints violated")
_LEAVES_TORCH = re.compile(r"\.numpy\(\)|numpy.*(tracing|FakeTensor)")
_USER_LINE = re.compile(r'File "([^"]+)", line (\d+), in \w+')

_REPLACE = "replace it in the model, or leave out the targets of this format"
_RUN = "run the model in torch on one sample of the task's inputs, and correct it or the task"


def diagnose(exc: BaseException, source: "FloatModel", said: str) -> tuple[str, str] | None:
    """Return what an export of *source* met, and what to do; None: nothing more is known than what it said.

    Args:
        exc: What it raised, with its causes.
        source: The model that it exports.
        said: That in one line, for what is not known here.
    """
    from hedgerow.task_module import ServingModule

    module = ServingModule(source.task, source.model).eval()
    layer, place = _where_it_ran(exc, module)
    everything = "\n".join(f"{type(one).__name__}: {one}" for one in chain(exc))
    if _BY_VALUE.search(everything):
        found = "a decision by the values of a tensor"
        advice = "compute both branches and choose with torch.where, without `if`, loops or .item() on tensors"
        return _in_layer(found, layer, place), advice
    if _FIXES_BATCH.search(everything):
        advice = "take it from x.shape[0], not from len(x) or from a number"
        return _in_layer("a size of the batch that is fixed in the model's forward", layer, place), advice
    if _LEAVES_TORCH.search(everything):
        advice = "compute it with torch, and leave numpy to the data"
        return _in_layer("numpy in the model's forward, which no export can follow", layer, place), advice
    if operator := missing_operator(exc):
        if not layer:
            layer, place = _where_it_is(operator, module, source)
        return _in_layer(f"the operator {operator}, which it does not have", layer, place), _REPLACE
    return (_in_layer(f"an error ({said})", layer, place), _RUN) if place else None


def chain(exc: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and its causes, the first of all at the end."""
    seen = set[int]()
    while exc is not None and id(exc) not in seen:
        seen.add(id(exc))
        yield exc
        exc = exc.__cause__ or exc.__context__


def missing_operator(exc: BaseException) -> str:
    """Return the operator that a library said in *exc* or its causes it cannot translate; empty where it named none."""
    for one in chain(exc):
        for pattern in _OPERATORS:
            if match := re.search(pattern, str(one)):
                return match[1].lower().removeprefix("stablehlo_")
    return ""


def _in_layer(found: str, layer: str, place: str) -> str:
    inside = f" in the layer {layer!r}" if layer else ""
    return f"{found}{inside}{f' ({place})' if place else ''}"


def _where_it_ran(exc: BaseException, module: "nn.Module") -> tuple[str, str]:
    """Return the layer whose code was running, and the line of the user's that it was at; empty where none was."""
    names = _layer_names(module)
    layer = place = ""
    for one in reversed(list(chain(exc))):
        for traceback in frames(one.__traceback__):
            frame = traceback.tb_frame
            layer = names.get(id(frame.f_locals.get("self")), layer)
            if _is_users(frame.f_code.co_filename, frame.f_globals.get("__name__", "")):
                place = f"{Path(frame.f_code.co_filename).name}, line {traceback.tb_lineno}"
        if place:
            return layer, place
    # Dynamo runs no Python of the model's: it tells the line in words.
    for one in chain(exc):
        lines = [found for found in _USER_LINE.findall(str(one)) if not is_library(found[0])]
        if lines:
            return layer, f"{Path(lines[-1][0]).name}, line {lines[-1][1]}"
    return layer, ""


def _is_users(path: str, module: str) -> bool:
    return not is_library(path) and not is_ours(module) and Path(path).suffix == ".py"


def _layer_names(module: "nn.Module") -> Mapping[int, str]:
    """Return how each layer of the user's model is called, by identity."""
    inner: Any = module
    return {id(layer): name for name, layer in inner.logits.model.named_modules() if name}


def _where_it_is(operator: str, module: "nn.Module", source: "FloatModel") -> tuple[str, str]:
    """Return layer and line of the first use of an operator in torch's trace of the model; empty where it has none."""
    import torch

    from hedgerow.compile.passes.examples import example_inputs

    try:
        program = torch.export.export(module, example_inputs(source.task.schema, 1), strict=False)
        for graph in (program.graph, program.run_decompositions().graph):
            for node in graph.nodes:
                if any(_is_called(operator, str(each)) for each in (node.target, node.meta.get("original_aten", ""))):
                    return _of_node(node)
    # This trace is for the message alone; libraries raise what they like, and the failure itself is told anyway.
    except Exception:  # noqa: BLE001 - see above
        return "", ""
    return "", ""


def _is_called(operator: str, target: str) -> bool:
    """Say whether a node's target, such as ``aten.linalg_inv_ex.default``, is an operator, or a form of it."""
    name = target.partition(".")[2].partition(".")[0]
    return name == operator or name.startswith(f"{operator}_")


def _of_node(node: Any) -> tuple[str, str]:
    """Return the layer and the line of a node of a traced model."""
    stack = [name for name, _kind in node.meta.get("nn_module_stack", {}).values()]
    layer = stack[-1].removeprefix("logits.model").lstrip(".") if stack else ""
    lines = [found for found in _USER_LINE.findall(node.meta.get("stack_trace") or "") if _is_users(found[0], "")]
    # Our own module calls the model: only what stands deeper is the user's.
    lines = [found for found in lines if Path(found[0]).name != "task_module.py"]
    return layer, f"{Path(lines[-1][0]).name}, line {lines[-1][1]}" if lines else ""
