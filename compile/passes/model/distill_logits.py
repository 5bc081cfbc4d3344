"""Distillation: the task's student learns from what the model says of every class (Hinton et al., 2015)."""

from dataclasses import dataclass, replace

import torch
from torch import nn

from hedgerow.compile.passes.model.student import make_student, teacher_logits
from hedgerow.compile.passes.model.training import TrainSettings, batch_loss, fit
from hedgerow.compile.passes.settings import between, read_settings
from hedgerow.compile.stage import Settings, Source

__all__ = ["DistillLogitsSettings", "distill_logits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillLogitsSettings(TrainSettings):
    """Settings of :func:`distill_logits`.

    Attributes:
        temperature: Both sides' logits are divided by it, which shows the student the small probabilities too.
        teacher_share: Share of the teacher in the loss; the rest is the task's own loss on the labels.
    """

    temperature: float = between(0.1, 100.0, default=2.0)
    teacher_share: float = between(0.0, 1.0, default=0.7)


def distill_logits(source: Source, settings: Settings) -> Source:
    """Return the source with the task's student, trained on the labels and on the model's logits.

    The teacher's part of the loss is the Kullback-Leibler divergence of the softened distributions times the squared
    temperature, or the mean squared difference where the task's outputs are no probabilities.

    Raises:
        UnsuitableError: The task names no student.
        PassError: There is no training data, or training diverges.
        PassSettingsError: The settings make no sense.
    """
    chosen = read_settings("distill-logits", DistillLogitsSettings, settings)
    student = make_student("distill-logits", source)
    taught, task_loss = teacher_logits("distill-logits", source), batch_loss(source)
    is_classifier = source.task.postprocess == "softmax"

    def loss(logits: torch.Tensor, labels: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        wanted = taught[positions]
        if is_classifier:
            said = nn.functional.log_softmax(logits / chosen.temperature, dim=-1)
            softened = nn.functional.log_softmax(wanted / chosen.temperature, dim=-1)
            taught_loss = nn.functional.kl_div(said, softened, reduction="batchmean", log_target=True)
            taught_loss = taught_loss * chosen.temperature**2
        else:
            taught_loss = nn.functional.mse_loss(logits, wanted)
        own = task_loss(logits, labels, positions)
        return chosen.teacher_share * taught_loss + (1 - chosen.teacher_share) * own

    fit("distill-logits", source, student, chosen, loss)
    return replace(source, model=student)
