"""What can go wrong when a cohort is trained at once; ``server/errors.py`` draws the whole tree.

- ServerError: the root of the folder's errors.
  - ClientTrainingError: a client's training failed, or ended its worker process.
  - CohortMemoryError: memory does not hold one client.
  - UntraceableError: a model cannot be trained for many clients in one step.
"""

from hedgerow.server.errors import ServerError

__all__ = ["ClientTrainingError", "CohortMemoryError", "UntraceableError"]


class UntraceableError(ServerError):
    """A model's step cannot be traced for many clients at once; engines that run its own code can train it."""

    def __init__(self, task: str, reason: str) -> None:
        super().__init__(
            f"expected a model whose training step can be traced for many clients at once, found task {task!r}, where "
            f"{reason}; use the engine workers or sequential"
        )
        self.task, self.reason = task, reason


class CohortMemoryError(ServerError):
    """Not even one client fits."""

    def __init__(self, device: str, found: str) -> None:
        super().__init__(
            f"expected memory on {device} for the training of one client, found {found}; free some, or take a smaller "
            "model or batch"
        )
        self.device = device


class ClientTrainingError(ServerError):
    """The training of one client failed."""

    def __init__(self, client: int | None, reason: str) -> None:
        whose = "training" if client is None else f"the training of client {client}"
        super().__init__(f"expected {whose} to succeed, found that {reason}; correct the model, its data or the cause")
        self.client, self.reason = client, reason
