"""One training step of many clients as one graph: gradients of stacked parameters, traced once for a shape.

``vmap`` over ``grad`` of the model costs 3 to 13 ms of dispatch in every step; the graph of it is traced once by
``make_fx`` and replayed for a tenth of that. Needs torch.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx
from torch.func import functional_call, functionalize, grad_and_value, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from hedgerow.server.cohort.convolution import ConvolutionChoice, convolution_decompositions
from hedgerow.server.cohort.errors import UntraceableError
from hedgerow.server.cohort.memory import is_out_of_memory
from hedgerow.server.cohort.simplify import memory_owner, simplify
from hedgerow.task import Task
from hedgerow.task_losses import loss_function
from hedgerow.task_module import LogitsModule, as_given

__all__ = ["ClientModel", "peak_bytes", "trace_step"]


class ClientModel:
    """A task's model as functions of its tensors.

    Attributes:
        trained: Names of the parameters that are trained.
        buffers: Names of other tensors, which a step may change.
        constants: Names of frozen parameters.
        aliases: Name in the state -> name of the same tensor in one of the three.
        tensors: Every tensor of the state by name.
    """

    def __init__(self, task: Task, device: str) -> None:
        if task.state:
            raise UntraceableError(task.name, "state runs through sequences")
        self.task = task
        self._model = task.model().train().to(device)
        self._module = LogitsModule(task, self._model).train()
        self._loss = loss_function(task)
        self.tensors: Mapping[str, torch.Tensor] = dict(self._model.state_dict())
        parameters = dict(self._model.named_parameters())
        self.trained = tuple(name for name, value in parameters.items() if value.requires_grad)
        self.constants = tuple(name for name, value in parameters.items() if not value.requires_grad)
        self.buffers = tuple(name for name, _value in self._model.named_buffers() if name in self.tensors)
        first = {id(value): name for name, value in [*self._model.named_buffers(), *parameters.items()]}
        everything = [
            *self._model.named_parameters(remove_duplicate=False),
            *self._model.named_buffers(remove_duplicate=False),
        ]
        self.aliases = {name: first[id(value)] for name, value in everything if name in self.tensors}

    def step(
        self,
        trained: Sequence[torch.Tensor],
        buffers: Sequence[torch.Tensor],
        constants: Sequence[torch.Tensor],
        inputs: Sequence[torch.Tensor],
        wanted: Sequence[torch.Tensor],
    ) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
        """Return one client's gradients, new buffers and loss for one batch."""

        # Buffers are arguments, for a transform refuses changes of what it does not know, and copies, for the graph is
        # to return the new ones.
        def loss_of(
            values: Sequence[torch.Tensor], own: Sequence[torch.Tensor]
        ) -> tuple[torch.Tensor, list[torch.Tensor]]:
            known = dict(zip(self.trained, values, strict=True))
            known.update(zip(self.buffers, own, strict=True))
            known.update(zip(self.constants, constants, strict=True))
            # The whole state under its own names, so that what the model assigns anew comes back in it.
            state = {f"model.{name}": known[alias] for name, alias in self.aliases.items()}
            given = functional_call(self._module, state, tuple(inputs), tie_weights=False)
            return self._loss(given, as_given(wanted)), [state[f"model.{name}"] for name in self.buffers]

        gradients, (loss, changed) = grad_and_value(loss_of, has_aux=True)(list(trained), [b.clone() for b in buffers])
        return list(gradients), changed, loss


class _FunctionalBatchNorm(TorchFunctionMode):
    """BatchNorm whose running statistics are plain arithmetic.

    torch's own operator changes them where no trace sees it.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        # While a function is handled the mode is off: what torch's own wrapper calls is not seen any more.
        if func is functional.batch_norm:
            return _batch_norm(*args, **(kwargs or {}))
        if func == torch.batch_norm or (func is functional.instance_norm and _has_statistics(*args, **(kwargs or {}))):
            raise RuntimeError(f"{func.__name__} changes its running statistics where no trace sees it")
        return func(*args, **(kwargs or {}))


def _has_statistics(
    _values: torch.Tensor, running_mean: torch.Tensor | None = None, *_args: Any, **_kwargs: Any
) -> bool:
    return running_mean is not None


def _batch_norm(
    values: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> torch.Tensor:
    if not training or running_mean is None or running_var is None:
        frozen: torch.Tensor
        frozen, *_statistics = torch.native_batch_norm(
            values, weight, bias, running_mean, running_var, training, momentum, eps
        )
        return frozen
    out, mean, inverse = torch.native_batch_norm(values, weight, bias, None, None, True, momentum, eps)
    with torch.no_grad():
        count = values.numel() // values.shape[1]
        if count < 2:
            raise ValueError("expected more than one value for each channel of BatchNorm")
        variance = (inverse.detach() ** -2 - eps) * (count / (count - 1))
        running_mean.mul_(1 - momentum).add_(mean.detach(), alpha=momentum)
        running_var.mul_(1 - momentum).add_(variance, alpha=momentum)
    return out


def trace_step(
    model: ClientModel,
    rows: int,
    inputs: Sequence[torch.Tensor],
    wanted: Sequence[torch.Tensor],
    choice: ConvolutionChoice,
) -> fx.GraphModule:
    """Trace one step of *rows* clients.

    Args:
        model: What every client trains.
        rows: How many.
        inputs: A batch of each input for each client, ``(rows, batch, ...)``.
        wanted: The target values of each output, ``(rows, batch, ...)``.
        choice: Decides how each convolution is computed.

    Returns:
        A graph ``(*trained, *buffers, *constants, *inputs, *wanted) -> (*gradients, *new buffers, losses)`` in which
        nothing is changed in place; all but the constants have *rows* rows.

    Raises:
        UntraceableError: The model does what cannot be traced, or has no rule for many clients.
    """
    counts = len(model.trained), len(model.buffers), len(model.constants), len(inputs), len(wanted)

    def stacked_step(*flat: torch.Tensor) -> list[torch.Tensor]:
        parts, start = [], 0
        for count in counts:
            parts.append(list(flat[start : start + count]))
            start += count
        gradients, changed, losses = vmap(model.step, in_dims=(0, 0, None, 0, 0))(*parts)
        return [*gradients, *changed, losses]

    example = [_stack(model.tensors[name], rows) for name in (*model.trained, *model.buffers)]
    example += [model.tensors[name] for name in model.constants]
    try:
        with _plain_operations(), _FunctionalBatchNorm():
            trace = make_fx(functionalize(stacked_step), decomposition_table=convolution_decompositions(rows, choice))
            module = trace(*example, *inputs, *wanted)
    # The user's model may raise anything under the transforms; the report must name it all the same.
    except Exception as exc:
        if is_out_of_memory(exc):
            raise
        reason = " ".join(f"{type(exc).__name__}: {exc}".split())[:300]
        raise UntraceableError(model.task.name, f"tracing raised {reason}") from exc
    module.graph.set_codegen(fx.graph.CodeGen())
    simplify(module, inputs[0].device)
    return module


@contextmanager
def _plain_operations() -> Iterator[None]:
    """Let recurrent layers and attention be traced as products and sums: libraries' kernels train one model only."""
    with warnings.catch_warnings():
        # vmap warns where it would run clients one by one, which would make a graph of thousands of operations.
        warnings.filterwarnings("error", message=".*performance drop")
        # Switching oneDNN restores all of its settings, also those for devices that are not there.
        warnings.filterwarnings("ignore", message="TF32 acceleration on top of oneDNN")
        libraries = torch.backends.mkldnn.flags(enabled=False), torch.backends.cudnn.flags(enabled=False)
        with libraries[0], libraries[1], sdpa_kernel(SDPBackend.MATH):
            yield


def _stack(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    return tensor.detach().expand(rows, *tensor.shape).clone()


def peak_bytes(module: fx.GraphModule) -> int:
    """Return the most memory that a graph's intermediate tensors take at one time."""
    nodes = list(module.graph.nodes)
    last_use: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        for used in node.all_input_nodes:
            last_use[memory_owner(used)] = node
    ends: dict[fx.Node, list[fx.Node]] = {}
    for owner, node in last_use.items():
        ends.setdefault(node, []).append(owner)
    held, peak = 0, 0
    for node in nodes:
        if node.op == "call_function" and memory_owner(node) is node:
            held += _bytes(node)
        peak = max(peak, held)
        held -= sum(_bytes(owner) for owner in ends.get(node, ()) if owner.op == "call_function")
    return peak


def _bytes(node: fx.Node) -> int:
    meta = node.meta.get("tensor_meta")
    parts = meta if isinstance(meta, tuple) and not hasattr(meta, "shape") else (meta,)
    return sum(part.shape.numel() * part.dtype.itemsize for part in parts if hasattr(part, "shape"))
