"""Train the model further with the task's own loss, such as after pruning."""

import copy
from dataclasses import dataclass, replace

import torch

from hedgerow.compile.passes.model.training import TrainSettings, batch_loss, fit
from hedgerow.compile.passes.settings import read_settings, yes_or_no
from hedgerow.compile.stage import Settings, Source

__all__ = ["FineTuneSettings", "fine_tune"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuneSettings(TrainSettings):
    """Settings of :func:`fine_tune`.

    Attributes:
        keep_zeros: Whether numbers of weight matrices that are exactly zero stay so: the mask of a pruned model.
    """

    keep_zeros: bool = yes_or_no(default=False)


def fine_tune(source: Source, settings: Settings) -> Source:
    """Return the source with a model trained further.

    Raises:
        PassError: There is no training data, or training diverges.
        PassSettingsError: The settings make no sense.
    """
    chosen = read_settings("fine-tune", FineTuneSettings, settings)
    model = copy.deepcopy(source.model)
    masks = [(value, value != 0) for value in model.parameters() if value.dim() > 1] if chosen.keep_zeros else []

    def restore_zeros() -> None:
        with torch.no_grad():
            for value, mask in masks:
                value.mul_(mask)

    fit("fine-tune", source, model, chosen, batch_loss(source), after_step=restore_zeros)
    return replace(source, model=model)
