"""One step of local training as a traced torch graph: forward, loss, backward, SGD.

The graph maps ``(*inputs, labels, learning_rate, *weights)`` to ``(loss, *weights)``. Weights travel as inputs and
outputs, which is what a federated round needs, and the graph has no state. Batch-norm statistics and other buffers
travel too and come back unchanged; the model is traced in evaluation mode, so dropout is off.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from hedgerow.compile.errors import UntranslatableError
from hedgerow.compile.passes.examples import example_inputs
from hedgerow.compile.stage import Source
from hedgerow.compile.train_graph.gradients import decompositions
from hedgerow.task import Task
from hedgerow.task_module import LogitsModule, loss_function
from hedgerow.weights import Arrays

__all__ = ["TracedStep", "reference_step", "trace_step"]


@dataclass(frozen=True, slots=True)
class TracedStep:
    """A traced step.

    Attributes:
        graph: Takes and returns what the module says.
        arguments: Arguments of the right shapes, with the source's weights.
        names: Names of the weights, in the graph's order.
    """

    graph: torch.fx.GraphModule
    arguments: tuple[torch.Tensor, ...]
    names: tuple[str, ...]


def _one_hot_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    # torch's own gathers by index, and the gradient of that is a scatter, which TFLite lacks.
    classes = torch.arange(logits.shape[-1], dtype=labels.dtype)
    chosen = (labels[:, None] == classes).to(logits.dtype)
    return -(torch.log_softmax(logits, -1) * chosen).sum() / logits.shape[0]


def trace_step(source: Source, *, label_dtype: torch.dtype = torch.int64) -> TracedStep:
    """Trace one step of plain SGD with the task's batch size and loss.

    Args:
        source: The model with its weights.
        label_dtype: Of the labels' tensor; LiteRT wants int32.

    Raises:
        UntranslatableError: The model needs a gradient that has no translation.
    """
    task, batch = source.task, source.task.local.batch_size
    module = LogitsModule(task, source.model).eval()
    loss = _one_hot_cross_entropy if task.loss == "cross_entropy" else loss_function(task)
    trained = {name: value for name, value in source.model.named_parameters() if value.requires_grad}
    state = source.model.state_dict()
    names = tuple(state)
    inputs = len(task.inputs)

    def step(*arguments: torch.Tensor) -> tuple[torch.Tensor, ...]:
        data, labels, rate = arguments[:inputs], arguments[inputs], arguments[inputs + 1]
        weights = dict(zip(names, arguments[inputs + 2 :], strict=True))

        def objective(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
            everything = {f"model.{name}": value for name, value in {**weights, **parameters}.items()}
            logits = torch.func.functional_call(module, everything, data)
            result: torch.Tensor = loss(logits, labels)
            return result

        gradients, value = torch.func.grad_and_value(objective)({name: weights[name] for name in trained})
        # Adding zero gives an untrained array an output of its own; an input handed through confuses exporters.
        updated = (weights[name] - rate * gradients[name] if name in gradients else weights[name] + 0 for name in names)
        return (value, *updated)

    arguments = (
        *example_inputs(task.schema, batch),
        torch.zeros(batch, dtype=label_dtype),
        torch.tensor(task.local.learning_rate),
        *(value.detach().clone() for value in state.values()),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = make_fx(step, decomposition_table=decompositions())(*arguments)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    graph.eval()
    _refuse_backward_operators(graph)
    return TracedStep(graph, arguments, names)


def _refuse_backward_operators(graph: torch.fx.GraphModule) -> None:
    left = {str(node.target).removeprefix("aten.") for node in graph.graph.nodes if node.op == "call_function"}
    unknown = tuple(sorted(name for name in left if "backward" in name))
    if unknown:
        raise UntranslatableError(unknown)


def reference_step(
    task: Task, model: torch.nn.Module, inputs: Sequence[torch.Tensor], labels: torch.Tensor, rate: float
) -> tuple[float, Arrays]:
    """Return loss and weights after one step of torch's own autograd and SGD, to compare a train graph with.

    *model* is changed by the step.
    """
    module = LogitsModule(task, model).eval()
    loss = loss_function(task)(module(*inputs), labels)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=rate)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    updated = {name: np.array(value.detach().numpy()) for name, value in model.state_dict().items()}
    return float(loss.detach()), updated
