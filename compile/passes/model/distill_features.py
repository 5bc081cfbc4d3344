"""Feature distillation: the task's student learns what one layer of the model sees (Romero et al., 2015)."""

from dataclasses import dataclass, replace

import torch
from torch import nn

from hedgerow.compile.errors import PassError
from hedgerow.compile.passes.examples import example_inputs
from hedgerow.compile.passes.model.student import make_student
from hedgerow.compile.passes.model.training import TrainSettings, batch_loss, fit, input_tensors, training_data
from hedgerow.compile.passes.settings import between, read_settings
from hedgerow.compile.stage import Settings, Source
from hedgerow.task_module import LogitsModule

__all__ = ["DistillFeaturesSettings", "distill_features"]

_STEP = "distill-features"
_BATCH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillFeaturesSettings(TrainSettings):
    """Settings of :func:`distill_features`.

    Attributes:
        weight: Weight of the features' loss beside the task's own loss.
        teacher_layer: Module of the model whose input is learned, such as ``head``; empty: its last linear layer.
        student_layer: The student's module; empty: its last linear layer.
    """

    weight: float = between(0.0, 1e6, default=1.0)
    teacher_layer: str = ""
    student_layer: str = ""


class _Tap:
    """Keeps what the last call gave to a module: ``(batch, features)``, averaged over positions."""

    def __init__(self, model: nn.Module, name: str) -> None:
        layers = dict(model.named_modules())
        linear = [place for place, module in layers.items() if isinstance(module, nn.Linear)]
        if not name and not linear:
            raise PassError(_STEP, "a model has no linear layer; name the layers to compare")
        chosen = name or linear[-1]
        if chosen not in layers:
            raise PassError(_STEP, f"a model has no layer {chosen!r}; it has {', '.join(sorted(layers)[1:9])}, ...")
        self.seen: torch.Tensor | None = None
        self._hook = layers[chosen].register_forward_pre_hook(self._keep)

    def _keep(self, _module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        values = arguments[0]
        # (batch, channels, *positions) for images; (batch, positions, channels) for sequences is seen as it is.
        self.seen = values.flatten(2).mean(dim=2) if values.dim() > 2 else values

    def features(self) -> torch.Tensor:
        """Return what was kept."""
        if self.seen is None:
            raise PassError(_STEP, "the layer to compare is not used by its model")
        return self.seen

    def close(self) -> None:
        """Take the hook off."""
        self._hook.remove()


def distill_features(source: Source, settings: Settings) -> Source:
    """Return the source with the task's student, trained on the labels and on the features of one layer of the model.

    Both sides' features are compared as unit vectors, after a linear map from the student's width to the model's that
    is trained along and thrown away.

    Raises:
        UnsuitableError: The task names no student.
        PassError: A layer is absent, there is no training data, or training diverges.
        PassSettingsError: The settings make no sense.
    """
    chosen = read_settings(_STEP, DistillFeaturesSettings, settings)
    student = make_student(_STEP, source)
    taught = _teacher_features(source, chosen.teacher_layer)
    tap = _Tap(student, chosen.student_layer)
    try:
        with torch.no_grad():
            LogitsModule(source.task, student.eval())(*example_inputs(source.task.schema, 1))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(source.seed)
            bridge = nn.Linear(tap.features().shape[1], taught.shape[1], bias=False)
        task_loss = batch_loss(source)

        def loss(logits: torch.Tensor, labels: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
            said = nn.functional.normalize(bridge(tap.features()), dim=1)
            wanted = nn.functional.normalize(taught[positions], dim=1)
            distance = (said - wanted).square().sum(dim=1).mean()
            return task_loss(logits, labels, positions) + chosen.weight * distance

        fit(_STEP, source, student, chosen, loss, extra=tuple(bridge.parameters()))
    finally:
        tap.close()
    return replace(source, model=student)


def _teacher_features(source: Source, layer: str) -> torch.Tensor:
    inputs = input_tensors(source, training_data(_STEP, source))
    module = LogitsModule(source.task, source.model).eval()
    tap = _Tap(source.model, layer)
    rows = []
    try:
        with torch.no_grad():
            for start in range(0, len(inputs[0]), _BATCH):
                module(*(values[start : start + _BATCH] for values in inputs))
                rows.append(tap.features())
    finally:
        tap.close()
    return torch.cat(rows)
