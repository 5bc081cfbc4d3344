"""Feature distillation: the task's student learns what one layer of the model sees (Romero et al., 2015)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hedgerow.compile.pass_models import FloatModel
from hedgerow.compile.passes.model.training_pass import TrainingPass
from hedgerow.compile.passes.settings import between

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["DistillFeatures"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillFeatures(TrainingPass):
    """Trains the task's student on the target values and on the features of one layer of the model.

    Both sides' features are compared as unit vectors, after a linear map from the student's width to the model's that
    is trained along and thrown away.

    Attributes:
        weight: Weight of the features' loss beside the task's own loss.
        teacher_layer: Module of the model whose input is learned, such as ``head``; empty: its last linear layer.
        student_layer: The student's module; empty: its last linear layer.
    """

    name: ClassVar[str] = "distill-features"
    weight: float = between(0.0, 1e6, default=1.0)
    teacher_layer: str = ""
    student_layer: str = ""

    def apply(self, source: FloatModel) -> "nn.Module":
        """Return the trained student.

        Raises:
            UnsuitableError: The task names no student.
            PassError: A layer is absent, there is no training data, or training diverges.
        """
        import torch
        from torch import nn

        from hedgerow.compile.passes.examples import example_inputs
        from hedgerow.compile.passes.model.hidden_layer import Tap, teacher_features
        from hedgerow.compile.passes.model.student import make_student
        from hedgerow.compile.passes.model.training import batch_loss, fit
        from hedgerow.task_module import LogitsModule

        student = make_student(self.name, source)
        taught = teacher_features(self.name, source, self.teacher_layer)
        tap = Tap(self.name, student, self.student_layer)
        try:
            with torch.no_grad():
                LogitsModule(source.task, student.eval())(*example_inputs(source.task.schema, 1))
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(source.seed)
                bridge = nn.Linear(tap.features().shape[1], taught.shape[1], bias=False)
            task_loss = batch_loss(source)

            def loss(given: Any, target_values: Any, positions: "torch.Tensor") -> "torch.Tensor":
                said = nn.functional.normalize(bridge(tap.features()), dim=1)
                wanted = nn.functional.normalize(taught[positions], dim=1)
                distance = (said - wanted).square().sum(dim=1).mean()
                return task_loss(given, target_values, positions) + self.weight * distance

            fit(source, student, self, loss, extra=tuple(bridge.parameters()))
        finally:
            tap.close()
        return student
