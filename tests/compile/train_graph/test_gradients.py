"""Each gradient of ours equals autograd's, in torch and after export."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hedgerow.compile.errors import UntranslatableError  # noqa: E402 - needs torch
from hedgerow.compile.pass_models import FloatModel  # noqa: E402
from hedgerow.compile.train_graph.export import export_train_graph, largest_difference  # noqa: E402
from hedgerow.compile.train_graph.gradients import decompositions  # noqa: E402
from hedgerow.compile.train_graph.options import StepOptions  # noqa: E402
from hedgerow.compile.train_graph.step import trace_step  # noqa: E402
from hedgerow.compile.train_graph.torch_training import reference_step  # noqa: E402
from hedgerow.schema import TensorSpec  # noqa: E402
from hedgerow.task import Dataset, LocalTraining, Task, TaskData  # noqa: E402

pytestmark = [
    pytest.mark.heavy,
    # torch, litert-torch and their dependencies call deprecated parts of each other.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

nn = torch.nn

MODELS = {
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(2 * 7 * 9, 5), nn.Tanh(), nn.Linear(5, 3)),
    "stride 1": lambda: nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), head(4 * 63)),
    "no padding": lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 2), head(3 * 4 * 6)),
    "stride 2": lambda: nn.Sequential(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 3, stride=2, padding=1), head(4 * 4 * 5)),
    "odd stride": lambda: nn.Sequential(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, (3, 2), stride=(3, 2)), head(4 * 2 * 4)),
    "more padding than kernel": lambda: nn.Sequential(nn.Conv2d(2, 3, 1), nn.Conv2d(3, 3, 1, padding=2), head(3 * 143)),
    "dilation": lambda: nn.Sequential(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 3, dilation=2, padding=2), head(4 * 63)),
    "depthwise": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 3, groups=4, stride=2, bias=False), head(4 * 3 * 4)
    ),
    "groups": lambda: nn.Sequential(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 6, 3, groups=2), head(6 * 5 * 7)),
    "batch norm": lambda: nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), head(4 * 35)),
    "average pool": lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.AvgPool2d(2), head(4 * 2 * 3)),
    "overlapping average pool": lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.AvgPool2d(3, 2), head(4 * 2 * 3)),
    "maximum pool": lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.MaxPool2d(2), head(4 * 2 * 3)),
    "overlapping maximum pool": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.MaxPool2d(3, 2, padding=1), head(4 * 3 * 4)
    ),
    "global pool": lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), head(4)),
}


def head(features: int) -> "torch.nn.Module":
    return nn.Sequential(nn.Flatten(), nn.Linear(features, 3))


def make_source(model, **settings) -> FloatModel:
    rng = np.random.default_rng(3)
    data = Dataset(
        {"image": rng.normal(size=(8, 2, 7, 9)).astype(np.float32)}, rng.integers(0, 3, size=8, dtype=np.int64)
    )
    task = Task(
        name="shapes",
        inputs=[TensorSpec("image", (2, 7, 9))],
        labels=["a", "b", "c"],
        model=lambda: model,
        data=lambda: TaskData(train=data, held_out=data),
        local=LocalTraining(learning_rate=0.1, batch_size=4),
        **({"preprocess": lambda image: image / 2} | settings),
    )
    return FloatModel(task=task, model=model.eval(), calibration=data)


def new_model(name: str) -> "torch.nn.Module":
    torch.manual_seed(5)
    model = MODELS[name]()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-1, 1)
            part.running_var.uniform_(0.5, 2)
    return model


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_traced_step_equals_autograd(name):
    source = make_source(new_model(name))
    traced = trace_step(source)
    inputs, labels = (
        torch.from_numpy(source.calibration.inputs["image"][:4]),
        torch.from_numpy(source.calibration.target_values[:4]),
    )
    loss, *updated = traced.graph(inputs, labels, torch.tensor(0.1), *traced.arguments[3:])
    wanted_loss, wanted = reference_step(source.task, source.model, [inputs], labels, 0.1)
    assert float(loss) == pytest.approx(wanted_loss, abs=1e-6)
    assert list(traced.names) == list(wanted)
    for tensor_name, values in zip(traced.names, updated, strict=True):
        np.testing.assert_allclose(values.numpy(), wanted[tensor_name], atol=2e-6, err_msg=tensor_name)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "onnx") for name in ("depthwise", "batch norm", "overlapping maximum pool", "odd stride")),
        *((name, "tflite") for name in ("depthwise", "odd stride")),
    ],
)
def test_an_exported_step_equals_autograd(name, kind):
    source = make_source(new_model(name))
    file = export_train_graph(source, kind)
    assert [tensor.name for tensor in file.parameters] == list(source.model.state_dict())
    assert [tensor.name for tensor in file.updated] == list(source.model.state_dict())
    assert file.batch_size == 4
    assert largest_difference(source, file, source.calibration) <= 1e-5


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_adams_step_equals_torchs_where_gradients_are_nothing_but_rounding(kind):
    """A bias before a batch norm that takes the batch's statistics changes no output: its gradient is rounding."""
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), head(4 * 35))
    source, options = make_source(model), StepOptions(optimizer="adam", batch_norm="train")
    file = export_train_graph(source, kind, options)
    assert largest_difference(source, file, source.calibration, options) <= 1e-5
    for wrong in ({"betas": (0.8, 0.999)}, {"betas": (0.9, 0.99)}, {"epsilon": 1e-2}):
        other = replace(options, **wrong)
        assert largest_difference(source, file, source.calibration, other) > 1e-4


def test_a_frozen_weight_comes_back_unchanged():
    model = new_model("linear")
    model[1].weight.requires_grad_(requires_grad=False)
    source = make_source(model)
    traced = trace_step(source)
    _loss, *updated = traced.graph(*traced.arguments)
    place = traced.names.index("1.weight")
    assert torch.equal(updated[place], model[1].weight)
    assert not torch.equal(updated[place + 1], model[1].bias)


def test_a_loss_of_the_users_own_is_traced():
    def loss(logits, labels):
        return (logits.logsumexp(-1) - logits[:, 0] * (labels == 0)).mean()

    source = make_source(new_model("linear"), loss=loss)
    file = export_train_graph(source, "onnx")
    assert largest_difference(source, file, source.calibration) <= 1e-5


@pytest.mark.parametrize(
    "preprocess",
    [
        lambda image: nn.functional.interpolate(image, size=(5, 6), mode="bicubic"),
        lambda image: nn.functional.interpolate(image, size=(5, 6), mode="bilinear", antialias=True),
        lambda image: nn.functional.interpolate((image * 8).to(torch.uint8), size=(5, 6)).float(),
        lambda image: nn.functional.pad((image * 8).to(torch.int32), (1, 1, 2, 2), mode="reflect")[
            :, :, :5, :6
        ].float(),
    ],
    ids=["bicubic", "antialias", "nearest of bytes", "reflected integers"],
)
def test_what_prepares_a_sample_needs_no_gradient(preprocess):
    source = make_source(nn.Sequential(nn.Flatten(), nn.Linear(60, 3)), preprocess=preprocess)
    file = export_train_graph(source, "onnx")
    assert largest_difference(source, file, source.calibration) <= 1e-5


def test_a_gradient_without_translation_is_named():
    source = make_source(nn.Sequential(nn.Conv2d(2, 4, 3), nn.Upsample(scale_factor=2, mode="bicubic"), head(4 * 140)))
    with pytest.raises(UntranslatableError, match=r"cannot hold the operators .*upsample_bicubic2d_backward"):
        trace_step(source)


def test_a_train_graph_holds_no_path_of_this_machine():
    content = export_train_graph(make_source(new_model("linear")), "onnx").content
    assert str(Path(__file__).parents[3]).encode() not in content
    assert b"site-packages" not in content


GEOMETRIES = [
    (size, kernel, stride, padding, dilation)
    for size in [(6, 6), (3, 9), (5, 7)]
    for kernel in [(1, 1), (2, 2), (3, 3), (3, 2)]
    for stride in [(1, 1), (2, 2), (3, 3), (3, 2)]
    for padding in [(0, 0), (1, 1), (1, 0)]
    for dilation in [(1, 1), (2, 2)]
    if all(2 * border <= taps for border, taps in zip(padding, kernel, strict=True))
    and all(
        have + 2 * border > holes * (taps - 1)
        for have, border, holes, taps in zip(size, padding, dilation, kernel, strict=True)
    )
]


def gradient_by_autograd(function, values, grad):
    taken = values.clone().requires_grad_()
    (found,) = torch.autograd.grad(function(taken), taken, grad)
    return found


def test_pooling_and_unfolding_of_every_geometry_have_autograds_gradient():
    """Windows side by side, over each other, with holes, borders, and places that no window meets."""
    torch.manual_seed(5)
    aten, functional, table = torch.ops.aten, nn.functional, decompositions()
    for size, kernel, stride, padding, dilation in GEOMETRIES:
        said = f"size {size}, kernel {kernel}, stride {stride}, padding {padding}, dilation {dilation}"
        values = torch.randn(2, 3, *size)

        def largest(taken, kernel=kernel, stride=stride, padding=padding, dilation=dilation):
            return functional.max_pool2d(taken, kernel, stride, padding, dilation)

        grad = torch.randn_like(largest(values))
        found, indices = table[aten.max_pool2d_with_indices.default](values, kernel, stride, padding, dilation)
        assert torch.equal(found, largest(values)), said
        found = table[aten.max_pool2d_with_indices_backward.default](
            grad, values, kernel, stride, padding, dilation, False, indices
        )
        assert torch.allclose(found, gradient_by_autograd(largest, values, grad), atol=1e-6), f"maximum, {said}"
        for counted in [True, False] if dilation == (1, 1) else []:

            def mean(taken, kernel=kernel, stride=stride, padding=padding, counted=counted):
                return functional.avg_pool2d(taken, kernel, stride, padding, count_include_pad=counted)

            found = table[aten.avg_pool2d_backward.default](grad, values, kernel, stride, padding, False, counted, None)
            assert torch.allclose(found, gradient_by_autograd(mean, values, grad), atol=1e-6), f"mean, {said}"
        columns = functional.unfold(values, kernel, dilation, padding, stride)
        found = table[aten.im2col.default](values, kernel, dilation, padding, stride)
        assert torch.equal(found, columns), f"unfold, {said}"
        columns = torch.randn_like(columns)
        image = functional.fold(columns, size, kernel, dilation, padding, stride)
        found = table[aten.col2im.default](columns, size, kernel, dilation, padding, stride)
        assert torch.allclose(found, image, atol=1e-6), f"fold, {said}"
