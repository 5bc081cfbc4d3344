"""What every unit of a compile is made from."""

from collections.abc import Mapping
from dataclasses import dataclass

from hedgerow.compile.budget import Budget
from hedgerow.compile.train_graph.options import StepOptions

__all__ = ["Request"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What every unit of a compile is made from.

    Attributes:
        task: The task's reference; paths in it are absolute.
        checkpoint: Folder of the checkpoint.
        weights_sha256: Hash of its weights.
        search_path: Where the task's modules are found.
        budget: What an artifact may cost.
        train_options: What train graphs hold beyond plain SGD.
        counts: Counts that replace those of the reference.
    """

    task: str
    checkpoint: str
    weights_sha256: str
    search_path: tuple[str, ...]
    budget: Budget
    train_options: StepOptions
    counts: Mapping[str, tuple[int, ...]]
