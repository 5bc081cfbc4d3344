"""One step of local training as a traced torch graph: forward, loss, backward, update.

The graph maps ``(*inputs, *targets, learning_rate, *weights, *extras)`` to ``(loss, *weights, *state)``. Weights and
optimizer state travel as inputs and outputs, which is what a federated round needs; the graph has no state of its own.
By default the model is traced in evaluation mode: batch norm uses its running statistics, which travel too and come
back unchanged, and nothing is dropped (see :class:`~hedgerow.compile.train_graph.options.StepOptions`).
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from hedgerow.compile.errors import UnsuitableError, UntranslatableError
from hedgerow.compile.pass_models import FloatModel
from hedgerow.compile.passes.examples import example_inputs
from hedgerow.compile.train_graph.gradients import decompositions
from hedgerow.compile.train_graph.layers import StepLayers
from hedgerow.compile.train_graph.optimizers import Tensors, state_shapes, updated
from hedgerow.compile.train_graph.options import StepOptions
from hedgerow.outputs.losses import loss_of
from hedgerow.task import Task
from hedgerow.task_losses import loss_function
from hedgerow.task_module import LogitsModule

__all__ = ["ExtraInput", "TracedStep", "set_modes", "trace_step"]

_PLAIN = StepOptions()


@dataclass(frozen=True, slots=True)
class ExtraInput:
    """An input of the graph beside the batch and the weights, as ``hedgerow.manifest.train_graph.Extra`` has it."""

    kind: str
    name: str
    shape: tuple[int, ...]
    parameter: str | None = None
    keep: float = 1.0


@dataclass(frozen=True, slots=True)
class TracedStep:
    """A traced step.

    Attributes:
        graph: Takes and returns what the module says.
        arguments: Arguments of the right shapes, with the source's weights; extras are zeros, masks ones.
        targets: The outputs whose target values the loss looks at, in the graph's order.
        names: Names of the weights, in the graph's order.
        updated: Names of the weights that come back, in the graph's order.
        extras: The inputs after the weights; those of the kind ``state`` come back in their order.
        aliases: Further name of a weight that several layers share -> the name that it travels under.
    """

    graph: torch.fx.GraphModule
    arguments: tuple[torch.Tensor, ...]
    targets: tuple[str, ...]
    names: tuple[str, ...]
    updated: tuple[str, ...]
    extras: tuple[ExtraInput, ...]
    aliases: Mapping[str, str]


def set_modes(module: torch.nn.Module, options: StepOptions) -> None:
    """Put dropout and batch norm into the modes that *options* asks for."""
    module.train(options.dropout)
    for part in module.modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - the base of all batch norms
            part.train(options.batch_norm == "train")


def _loss(task: Task, options: StepOptions) -> Callable[[Any, Any], torch.Tensor]:
    output = task.answers.alone
    if output is not None and options.targets == "classes" and not output.target_shape:
        [name] = task.answers
        if loss_of(task.answers, name, task.loss) == "cross_entropy":
            # StepLayers replaces torch's cross-entropy while it is entered, and this stays the graph it always was.
            return _one_hot_cross_entropy
    return loss_function(task)


def _one_hot_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    # torch's own gathers by index, and the gradient of that is a scatter, which TFLite lacks.
    classes = torch.arange(logits.shape[-1], dtype=labels.dtype)
    chosen = (labels[:, None] == classes).to(logits.dtype)
    return -(torch.log_softmax(logits, -1) * chosen).sum() / logits.shape[0]


def _extra_inputs(
    options: StepOptions, shapes: Mapping[str, tuple[int, ...]], layers: StepLayers
) -> tuple[ExtraInput, ...]:
    """Return the inputs after the weights for trained parameters of *shapes*, with the masks that *layers* wanted."""
    found = [ExtraInput("state", name, shape) for name, shape in state_shapes(options, shapes).items()]
    if options.proximal:
        found.append(ExtraInput("proximal_mu", "proximal_mu", (1,)))
        found += [ExtraInput("anchor", f"anchor:{name}", shape, name) for name, shape in shapes.items()]
    if options.control_variates:
        found += [ExtraInput("control", f"control:{name}", shape, name) for name, shape in shapes.items()]
    found += [
        ExtraInput("mask", f"mask:{index}", mask.shape, keep=mask.keep) for index, mask in enumerate(layers.wanted)
    ]
    return tuple(found)


def trace_step(source: FloatModel, options: StepOptions = _PLAIN, *, for_tflite: bool = False) -> TracedStep:
    """Trace one step with the task's batch size and loss.

    Args:
        source: The model with its weights.
        options: What the step holds.
        for_tflite: Target values that are whole numbers are int32, and there is no operator that TFLite lacks.

    Raises:
        UnknownNameError: A pattern of trainable parameters matches none.
        UnsuitableError: The task has state.
        UntranslatableError: The model needs a gradient that has no translation.
    """
    task, batch = source.task, source.task.local.batch_size
    if task.state:
        raise UnsuitableError(
            "a train graph",
            "a task without state: it takes single samples, and no sequences",
            f"the state {', '.join(task.state)} of {task.name!r}",
            "train it with hedgerow train, and release it anew",
        )
    module = LogitsModule(task, source.model)
    before = source.model.training
    try:
        set_modes(module, options)
        _refuse_layers(source.model)
        return _traced(module, source, options, batch, for_tflite=for_tflite)
    except RuntimeError as exc:
        if "setup_context" not in str(exc):
            raise
        # Torch's own sentence is about its internals; the step is traced through functorch, which needs that method.
        raise UntranslatableError(("an autograd.Function without setup_context",)) from exc
    finally:
        source.model.train(before)


def _traced(
    module: LogitsModule, source: FloatModel, options: StepOptions, batch: int, *, for_tflite: bool
) -> TracedStep:
    task = source.task
    loss = _loss(task, options)
    stored, aliases = source.model.state_dict(keep_vars=True), _aliases(source.model)
    chosen = options.trained(name for name, value in stored.items() if _trains(value))
    # What is shared is one tensor, whichever of its names was chosen, and its gradient is the sum over all its uses.
    trained = tuple(dict.fromkeys(aliases.get(name, name) for name in chosen))
    weights = {name: value.detach().clone() for name, value in stored.items() if name not in aliases}
    data = example_inputs(task.schema, batch)
    wanted = StepLayers(weights, None)
    with torch.no_grad(), wanted, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = torch.func.functional_call(module, _inside(weights), data)
    targets = _example_targets(task, options, given, batch, for_tflite=for_tflite)
    extras = _extra_inputs(options, {name: tuple(weights[name].shape) for name in trained}, wanted)
    # Without a choice, everything comes back: a device's update is all arrays.
    returned = tuple(weights) if options.trainable is None else tuple(dict.fromkeys((*trained, *wanted.statistics)))
    inputs, first = len(data), len(data) + len(targets) + 1
    last = first + len(weights)

    def step(*arguments: torch.Tensor) -> tuple[torch.Tensor, ...]:
        wanted: Any = arguments[inputs : first - 1]
        rate, given = arguments[first - 1], dict(zip(weights, arguments[first:last], strict=True))
        more = {extra.name: value for extra, value in zip(extras, arguments[last:], strict=True)}
        masks = [more[extra.name] for extra in extras if extra.kind == "mask"]

        def objective(parameters: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            everything = {**given, **parameters}
            layers = StepLayers(everything, masks)
            with layers:
                found = torch.func.functional_call(module, _inside(everything), arguments[:inputs])
                return loss(found, wanted if len(wanted) > 1 else wanted[0]), layers.statistics

        gradients, (value, statistics) = torch.func.grad_and_value(objective, has_aux=True)(
            {name: given[name] for name in trained}
        )
        gradients = {name: _corrected(gradient, given, more, name) for name, gradient in gradients.items()}
        after, state = updated(options, rate, given, gradients, more)
        after |= statistics
        # Adding zero gives an untrained array an output of its own; an input handed through confuses exporters.
        weights_after = (after[name] if name in after else given[name] + 0 for name in returned)
        return (value, *weights_after, *(state[extra.name] for extra in extras if extra.kind == "state"))

    arguments = (
        *data,
        *targets.values(),
        torch.tensor(task.local.learning_rate),
        *weights.values(),
        *(torch.ones(extra.shape) if extra.kind == "mask" else torch.zeros(extra.shape) for extra in extras),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = make_fx(step, decomposition_table=decompositions(for_tflite=for_tflite))(*arguments)
    graph.graph.eliminate_dead_code()
    _refuse_backward_operators(graph)
    told = _drop_unused(graph, tuple(targets), inputs)
    dropped = len(targets) - len(told)
    kept = tuple(weights) if options.trainable is None else _drop_unused(graph, tuple(weights), first - dropped)
    graph.recompile()
    graph.eval()
    arguments = (
        *data,
        *(targets[name] for name in told),
        arguments[first - 1],
        *(weights[name] for name in kept),
        *arguments[last:],
    )
    return TracedStep(graph, arguments, told, kept, returned, extras, aliases)


def _example_targets(
    task: Task, options: StepOptions, given: Any, batch: int, *, for_tflite: bool
) -> dict[str, torch.Tensor]:
    """Return zeros of the target values of each output; what the model gives says their form where they are floats."""
    parts = given if isinstance(given, tuple) else (given,)
    found = {}
    for (name, output), part in zip(task.answers.items(), parts, strict=True):
        if options.targets == "values":
            found[name] = torch.zeros(part.shape)
            continue
        dtype = "int32" if for_tflite and output.target_dtype == "int64" else output.target_dtype
        found[name] = torch.zeros((batch, *output.target_shape), dtype=getattr(torch, dtype))
    return found


def _refuse_layers(model: torch.nn.Module) -> None:
    """Refuse what torch would end with an error of its own while it is traced."""
    for part in model.modules():
        norm = isinstance(part, torch.nn.modules.batchnorm._BatchNorm)  # noqa: SLF001 - the base of all batch norms
        if norm and part.training and part.track_running_stats and part.momentum is None:
            # It divides by the count of batches, which it reads out of a tensor.
            raise UntranslatableError(("batch_norm with momentum=None",))


def _trains(value: torch.Tensor) -> bool:
    return isinstance(value, torch.nn.Parameter) and value.requires_grad


def _aliases(model: torch.nn.Module) -> dict[str, str]:
    """Return each further name of a tensor that the model holds under several -> its first."""
    first: dict[int, str] = {}
    found = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if first.setdefault(id(value), name) != name:
            found[name] = first[id(value)]
    return found


def _inside(weights: Tensors) -> dict[str, torch.Tensor]:
    return {f"model.{name}": value for name, value in weights.items()}


def _corrected(gradient: torch.Tensor, weights: Tensors, more: Tensors, name: str) -> torch.Tensor:
    if f"anchor:{name}" in more:
        gradient = gradient + more["proximal_mu"] * (weights[name] - more[f"anchor:{name}"])
    if f"control:{name}" in more:
        gradient = gradient + more[f"control:{name}"]
    return gradient


def _drop_unused(graph: torch.fx.GraphModule, names: Sequence[str], first: int) -> tuple[str, ...]:
    """Remove inputs that nothing reads, such as a count of batches; return the other names."""
    places = [node for node in graph.graph.nodes if node.op == "placeholder"][first : first + len(names)]
    kept = []
    for name, node in zip(names, places, strict=True):
        if node.users:
            kept.append(name)
        else:
            graph.graph.erase_node(node)
    return tuple(kept)


def _refuse_backward_operators(graph: torch.fx.GraphModule) -> None:
    left = {str(node.target).removeprefix("aten.") for node in graph.graph.nodes if node.op == "call_function"}
    unknown = tuple(sorted(name for name in left if "backward" in name))
    if unknown:
        raise UntranslatableError(unknown)
