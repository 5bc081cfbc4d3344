"""A traced step computes what autograd computes, and changes dense weights without a gradient in memory."""

from collections.abc import Sequence

import pytest

# In float64, for in float32 rounding may decide on which side of a ReLU's kink a number lies.
pytestmark = pytest.mark.heavy
torch = pytest.importorskip("torch")

from torch import fx, nn  # noqa: E402

from hedgerow.server.cohort.step_graph import count_operations, take_sgd_steps, trace_gradients  # noqa: E402
from hedgerow.task_losses import loss_function  # noqa: E402
from hedgerow.task_module import LogitsModule  # noqa: E402
from tests.server.cohort.small_tasks import CLASSES, MODELS, image_task, mlp  # noqa: E402

ATEN = torch.ops.aten


def _batch(seed: int = 1) -> tuple["torch.Tensor", "torch.Tensor"]:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(6, 3, 10, 10, generator=rng, dtype=torch.float64), torch.randint(0, CLASSES, (6,), generator=rng)


def _traced(model: nn.Module) -> tuple[fx.GraphModule, dict[str, "torch.Tensor"], list[str]]:
    tensors = {name: value for name, value in model.state_dict(keep_vars=True).items() if name != "up.weight"}
    values = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    values = {
        name: value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value
        for name, value in values.items()
    }
    trained = [name for name, value in model.named_parameters() if value.requires_grad]
    images, labels = _batch()
    images = images.contiguous(memory_format=torch.channels_last)
    return trace_gradients(image_task(mlp), model, values, trained, [images], [labels]), values, trained


def _targets(module: fx.GraphModule) -> Sequence[object]:
    return [node.target for node in module.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"gru"}))
def test_loss_gradients_and_buffers_are_autograds(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]().double().train()
    module, values, trained = _traced(model)
    images, labels = _batch(seed=2)
    task = image_task(mlp)
    torch.manual_seed(4)
    loss = loss_function(task)(LogitsModule(task, model)(images), labels)
    wanted = torch.autograd.grad(
        loss, [dict(model.named_parameters())[name] for name in trained], materialize_grads=True
    )
    torch.manual_seed(4)
    with torch.no_grad():
        found_loss, *found = module(*values.values(), images.contiguous(memory_format=torch.channels_last), labels)
    torch.testing.assert_close(found_loss, loss.detach())
    for gradient, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-9, atol=1e-10)
    for buffer, value in model.named_buffers():
        torch.testing.assert_close(values[buffer], value, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", ["mlp", "resnet8", "tied"])
def test_the_step_of_sgd_is_minus_rate_times_the_gradient(name: str) -> None:
    torch.manual_seed(0)
    module, values, trained = _traced(MODELS[name]().double().train())
    images, labels = _batch()
    before = {key: value.clone() for key, value in values.items()}
    with torch.no_grad():
        _loss, *gradients = module(*(value.clone() for value in values.values()), images, labels)
        take_sgd_steps(module, [list(values).index(key) for key in trained])
        module(*values.values(), images, labels, -0.5)
    for parameter, gradient in zip(trained, gradients, strict=True):
        torch.testing.assert_close(values[parameter], before[parameter] - 0.5 * gradient, rtol=1e-9, atol=1e-10)


def test_gradients_of_dense_layers_are_never_written() -> None:
    module, values, trained = _traced(mlp().double())
    before = count_operations(module)
    take_sgd_steps(module, [list(values).index(name) for name in trained])
    targets = _targets(module)
    assert targets.count(ATEN.addmm_.default) == 2  # one a layer
    assert targets.count(ATEN._foreach_add_.List) == 1  # the biases
    assert targets.count(ATEN.mm.default) == 1  # what the first layer's activations get
    assert count_operations(module) == before + 1


def test_a_tied_layer_is_not_changed_before_its_last_use() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(300, 300, bias=False)

        def forward(self, images: "torch.Tensor") -> "torch.Tensor":
            return self.layer(self.layer(images.flatten(1)))[:, :CLASSES]

    model = Twice().double()
    module, values, trained = _traced(model)
    images, labels = _batch()
    loss = nn.functional.cross_entropy(model(images), labels)
    (gradient,) = torch.autograd.grad(loss, list(model.parameters()))
    take_sgd_steps(module, [0])
    with torch.no_grad():
        module(*values.values(), images, labels, -0.1)
    assert trained == ["layer.weight"]
    torch.testing.assert_close(values["layer.weight"], model.layer.weight.detach() - 0.1 * gradient)


def test_parameters_that_are_each_others_gradient_are_changed_at_once() -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Parameter(torch.randn(5, 300)), nn.Parameter(torch.randn(CLASSES, 5))

        def forward(self, images: "torch.Tensor") -> "torch.Tensor":
            return images.flatten(1) @ (self.right @ self.left).t()

    torch.manual_seed(0)
    model = Product().double()
    module, values, _trained = _traced(model)
    images, labels = _batch()
    gradients = torch.autograd.grad(nn.functional.cross_entropy(model(images), labels), list(model.parameters()))
    take_sgd_steps(module, [0, 1])
    with torch.no_grad():
        module(*values.values(), images, labels, -0.1)
    for value, parameter, gradient in zip(values.values(), model.parameters(), gradients, strict=True):
        torch.testing.assert_close(value, parameter.detach() - 0.1 * gradient, rtol=1e-9, atol=1e-10)


def test_element_wise_operations_write_over_what_nobody_reads_again() -> None:
    module, _values, _trained = _traced(MODELS["cnn"]().double())
    targets = _targets(module)
    assert targets.count(ATEN.relu_.default) == 3
    assert ATEN.relu.default not in targets
    assert targets.count(ATEN.threshold_backward.grad_input) == 3
    assert ATEN.detach.default not in targets
