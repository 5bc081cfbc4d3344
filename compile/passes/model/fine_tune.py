"""Train the model further with the task's own loss, such as after pruning."""

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from hedgerow.compile.pass_models import FloatModel
from hedgerow.compile.passes.model.training_pass import TrainingPass
from hedgerow.compile.passes.settings import yes_or_no

if TYPE_CHECKING:
    from torch import nn

__all__ = ["FineTune"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTune(TrainingPass):
    """Trains the model further.

    Attributes:
        keep_zeros: Whether numbers of weight matrices that are exactly zero stay so: the mask of a pruned model.
    """

    name: ClassVar[str] = "fine-tune"
    keep_zeros: bool = yes_or_no(default=False)

    def apply(self, source: FloatModel) -> "nn.Module":
        """Return a model trained further.

        Raises:
            PassError: There is no training data, or training diverges.
        """
        import torch

        from hedgerow.compile.passes.model.training import batch_loss, fit

        model = copy.deepcopy(source.model)
        masks = [(value, value != 0) for value in model.parameters() if value.dim() > 1] if self.keep_zeros else []

        def restore_zeros() -> None:
            with torch.no_grad():
                for value, mask in masks:
                    value.mul_(mask)

        fit(source, model, self, batch_loss(source), after_step=restore_zeros)
        return model
