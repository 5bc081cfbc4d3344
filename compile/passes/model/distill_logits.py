"""Distillation: the task's student learns from what the model says of every class (Hinton et al., 2015)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from hedgerow.compile.pass_models import FloatModel
from hedgerow.compile.passes.model.training_pass import TrainingPass
from hedgerow.compile.passes.settings import between

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["DistillLogits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillLogits(TrainingPass):
    """Trains the task's student on the labels and on the model's logits.

    The teacher's part of the loss is the Kullback-Leibler divergence of the softened distributions times the squared
    temperature, or the mean squared difference where the task's outputs are no probabilities.

    Attributes:
        temperature: Both sides' logits are divided by it, which shows the student the small probabilities too.
        teacher_share: Share of the teacher in the loss; the rest is the task's own loss on the labels.
    """

    name: ClassVar[str] = "distill-logits"
    temperature: float = between(0.1, 100.0, default=2.0)
    teacher_share: float = between(0.0, 1.0, default=0.7)

    def apply(self, source: FloatModel) -> "nn.Module":
        """Return the trained student.

        Raises:
            UnsuitableError: The task names no student.
            PassError: There is no training data, or training diverges.
        """
        from torch import nn

        from hedgerow.compile.passes.model.student import make_student, teacher_logits
        from hedgerow.compile.passes.model.training import batch_loss, fit

        student = make_student(self.name, source)
        taught, task_loss = teacher_logits(self.name, source), batch_loss(source)
        is_classifier = source.task.postprocess == "softmax"

        def loss(logits: "torch.Tensor", labels: "torch.Tensor", positions: "torch.Tensor") -> "torch.Tensor":
            wanted = taught[positions]
            if is_classifier:
                said = nn.functional.log_softmax(logits / self.temperature, dim=-1)
                softened = nn.functional.log_softmax(wanted / self.temperature, dim=-1)
                taught_loss = nn.functional.kl_div(said, softened, reduction="batchmean", log_target=True)
                taught_loss = taught_loss * self.temperature**2
            else:
                taught_loss = nn.functional.mse_loss(logits, wanted)
            own = task_loss(logits, labels, positions)
            return self.teacher_share * taught_loss + (1 - self.teacher_share) * own

        fit(source, student, self, loss)
        return student
