"""A client is trained by its traced step where that does the same as the plain loop, else by the plain loop."""

from collections.abc import Callable

import numpy as np
import pytest

pytestmark = pytest.mark.heavy
torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from hedgerow.local_work import LocalWork  # noqa: E402
from hedgerow.schema import TensorSpec  # noqa: E402
from hedgerow.server.cohort.client_steps import ClientSteps  # noqa: E402
from hedgerow.server.cohort.sequential import ResidentData  # noqa: E402
from hedgerow.server.cohort.shared_rows import ModelRow  # noqa: E402
from hedgerow.server.local_steps import LocalTrainer, draws_random_numbers  # noqa: E402
from hedgerow.state import State  # noqa: E402
from hedgerow.task import Dataset, Task, TaskData  # noqa: E402
from tests.server.cohort.small_tasks import MODELS, image_task, images, mlp  # noqa: E402

WORK = LocalWork(epochs=2, learning_rate=0.05, batch_size=8, seed=11)


def _steps(task: Task, dataset: Dataset) -> ClientSteps:
    return ClientSteps(task, ResidentData(task, dataset, "cpu"), 8, draws=draws_random_numbers(task, dataset))


def _row(steps: ClientSteps) -> ModelRow:
    return ModelRow.of(steps.layout, torch.zeros(steps.layout.row_bytes, dtype=torch.uint8))


def _compare(task: Task, dataset: Dataset, work: LocalWork = WORK, tolerance: float = 1e-5) -> ClientSteps:
    steps, positions = _steps(task, dataset), torch.arange(3, 23)
    plain = LocalTrainer(task, reseeds=draws_random_numbers(task, dataset))
    sent, target = _row(steps), _row(steps)
    for name, tensor in plain.tensors.items():
        sent.tensors[name].copy_(tensor)
    start = {name: tensor.clone() for name, tensor in sent.tensors.items()}
    data = ResidentData(task, dataset, "cpu")
    wanted = plain.take_steps(start, data.inputs, data.wanted[0], work, positions=positions)
    found = steps.train(sent, target, positions, work)
    assert found.loss == pytest.approx(wanted.loss, rel=tolerance)
    assert found.norm == pytest.approx(wanted.norm, rel=tolerance, abs=tolerance)
    for name, tensor in plain.tensors.items():
        torch.testing.assert_close(target.tensors[name], tensor, rtol=tolerance, atol=tolerance)
        assert torch.equal(sent.tensors[name], start[name])
    return steps


class _Branches(nn.Module):
    """Looks at its data, as no trace can."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(300, 4)

    def forward(self, values: "torch.Tensor") -> "torch.Tensor":
        flat = values.flatten(1)
        return self.layer(flat if flat.sum() > 0 else -flat)


class _Remembers(nn.Module):
    """Replaces its buffer instead of changing it, which a trace does not see."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(300, 4)
        self.register_buffer("average", torch.zeros(4))

    def forward(self, values: "torch.Tensor") -> "torch.Tensor":
        logits = self.layer(values.flatten(1))
        self.average = 0.5 * self.average + 0.5 * logits.detach().mean(0)
        return logits - self.average


@pytest.mark.parametrize(("model", "reason"), [(_Branches, "cannot be traced"), (_Remembers, "its traced step")])
def test_a_step_that_a_trace_gets_wrong_is_taken_plainly(model: Callable[[], nn.Module], reason: str) -> None:
    steps = _steps(image_task(model), images(40, 1))
    assert not steps.traced
    assert reason in steps.reason


def test_unrolled_recurrences_are_taken_plainly() -> None:
    steps = _compare(image_task(MODELS["gru"]), images(40, 1))
    assert not steps.traced
    assert "operations" in steps.reason


@pytest.mark.parametrize("channels", ["first", "last"])
def test_dropout_masks_are_the_plain_loops_whatever_the_layout_of_images(channels: str) -> None:
    dataset = images(40, 1)
    if channels == "last":
        turned = np.ascontiguousarray(np.moveaxis(dataset.inputs["image"], 1, 3))
        dataset = Dataset({"image": turned}, dataset.target_values)
        task = image_task(
            MODELS["dropout"],
            inputs=[type(image_task(mlp).inputs[0])("image", (10, 10, 3), "float32")],
            preprocess=lambda image: image.permute(0, 3, 1, 2),
        )
    else:
        task = image_task(MODELS["dropout"])
    assert _compare(task, dataset).traced


def test_preprocessing_and_a_loss_of_ones_own_are_traced() -> None:
    centre = torch.tensor(0.1)

    def loss(logits: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
        return nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)

    task = image_task(mlp, preprocess=lambda image: image.flatten(1) * 0.5 - centre, loss=loss)
    steps = _compare(task, images(40, 1))
    assert steps.traced, steps.reason


class _Added(nn.Module):
    """Two parameters with one gradient, and one whose gradient is the same number everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Parameter(torch.zeros(4, 300)), nn.Parameter(torch.ones(4, 300))
        self.three = nn.Parameter(torch.arange(4.0))

    def forward(self, values: "torch.Tensor") -> "torch.Tensor":
        logits = values.flatten(1) @ (self.one + self.two).t()
        return torch.cat([logits[:, :3], logits[:, 3:] + self.three.sum()], dim=1)


def test_parameters_with_one_gradient_decay_each_by_itself() -> None:
    task, work = image_task(_Added), LocalWork(epochs=1, learning_rate=0.1, batch_size=8, seed=1, weight_decay=0.5)
    dataset = images(8, 1)
    assert _compare(task, images(40, 1), work).traced
    model = task.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.5)
    nn.functional.cross_entropy(
        model(torch.from_numpy(dataset.inputs["image"])), torch.from_numpy(dataset.target_values)
    ).backward()
    optimizer.step()
    trainer = LocalTrainer(task)
    trainer.train({name: value.numpy() for name, value in task.model().state_dict().items()}, dataset, work)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(trainer.tensors[name].detach(), parameter.detach(), rtol=1e-5, atol=1e-6)


def test_making_steps_leaves_torchs_generator_alone() -> None:
    before = torch.get_rng_state()
    ClientSteps(image_task(MODELS["dropout"]), ResidentData(image_task(mlp), images(40, 1), "cpu"), 8, draws=True)
    assert torch.equal(torch.get_rng_state(), before)


class Remembering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(3, 6), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = self.cell(x, h)
        return self.head(h), h


def test_sequences_of_a_task_with_state_are_trained_as_by_the_plain_loop() -> None:
    rng = np.random.default_rng(4)
    data = Dataset({"x": rng.normal(size=(30, 5, 3)).astype(np.float32)}, rng.integers(0, 4, (30, 5)))
    task = Task(
        name="remembering",
        inputs=[TensorSpec("x", (3,))],
        labels=list("abcd"),
        model=Remembering,
        data=lambda: TaskData(data, data),
        state={"h": State((1, 6))},
    )

    _compare(task, data)
