"""Distillation: the task's student learns from what the model gives, such as of every class (Hinton et al., 2015)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hedgerow.compile.pass_models import FloatModel
from hedgerow.compile.passes.model.training_pass import TrainingPass
from hedgerow.compile.passes.settings import between

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["DistillLogits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillLogits(TrainingPass):
    """Trains the task's student on the target values and on what the model gives.

    The teacher's part of the loss is the Kullback-Leibler divergence of the softened distributions times the squared
    temperature, of one distribution or, where each number is a probability of its own, of two classes each; where the
    task's outputs are no probabilities it is the mean squared difference, in the output's tolerances where it has any.
    Of several outputs it is the sum by their weights.

    Attributes:
        temperature: Both sides' logits are divided by it, which shows the student the small probabilities too.
        teacher_share: Share of the teacher in the loss; the rest is the task's own loss on the target values.
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
        from hedgerow.compile.passes.model.student import make_student, teacher_outputs
        from hedgerow.compile.passes.model.taught import taught_loss
        from hedgerow.compile.passes.model.training import batch_loss, fit

        student = make_student(self.name, source)
        taught, task_loss = teacher_outputs(self.name, source), batch_loss(source)
        outputs = tuple(source.task.answers.values())

        def loss(given: Any, wanted: Any, positions: "torch.Tensor") -> "torch.Tensor":
            parts = given if isinstance(given, tuple) else (given,)
            of_teacher = sum(
                output.weight * taught_loss(output, part, whole[positions], self.temperature)
                for output, part, whole in zip(outputs, parts, taught, strict=True)
            )
            own = task_loss(given, wanted, positions)
            return self.teacher_share * of_teacher + (1 - self.teacher_share) * own

        fit(source, student, self, loss)
        return student
