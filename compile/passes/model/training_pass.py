"""What all passes that train have as settings."""

from dataclasses import dataclass

from hedgerow.compile.passes.kinds import ModelPass
from hedgerow.compile.passes.settings import between

__all__ = ["TrainingPass"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPass(ModelPass):
    """A pass that trains, with Adam and a cosine schedule down to zero.

    Attributes:
        epochs: How often it sees the training data.
        learning_rate: Step size at the start.
        batch_size: Samples a step.
    """

    epochs: int = between(1, 1000)
    learning_rate: float = between(1e-7, 10.0)
    batch_size: int = between(2, 65536, default=32)
