"""A traced step that changes stacked weights in place: replayed as a graph, compiled, or captured. Needs torch."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from hedgerow.server.cohort.sequential import ResidentData
from hedgerow.server.cohort.stacked import Rows, StepRule

__all__ = ["Program", "ReplayedStep"]

Program = Callable[..., Sequence[Any]]
"""A graph, or what it was compiled to."""


class ReplayedStep:
    """One step of the first rows of a stacked cohort.

    Args:
        program: The traced step. Where *rule* is plain it changes the parameters itself.
        rows: What it changes.
        constants: Frozen parameters.
        data: The resident data set, from which it gathers.
        rule: How gradients become steps.
    """

    def __init__(
        self, program: Program, rows: Rows, constants: Sequence[torch.Tensor], data: ResidentData, rule: StepRule
    ) -> None:
        self._program, self._rows, self._constants, self._data, self._rule = program, rows, constants, data, rule
        self._graph: torch.cuda.CUDAGraph | None = None
        self._positions: torch.Tensor | None = None

    def capture(self, batch_size: int) -> None:
        """Record the step as a CUDA graph; it runs a few times, so the rows must be filled afterwards.

        On other devices nothing happens: operations are started one by one there.
        """
        if self._graph is not None or not self._data.inputs[0].is_cuda:
            return
        device = self._data.inputs[0].device
        positions = torch.zeros((len(self._rows.loss_sums), batch_size), dtype=torch.int64, device=device)
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            # Libraries allocate and choose algorithms in their first calls, which a capture must not see.
            for _ in range(3):
                self._take(positions)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._take(positions)
        self._graph, self._positions = graph, positions

    def __call__(self, positions: torch.Tensor) -> None:
        """Take the step on the samples at *positions*, ``int64[rows, batch]``."""
        if self._graph is None or self._positions is None:
            self._take(positions)
        else:
            self._positions.copy_(positions)
            self._graph.replay()

    def _take(self, positions: torch.Tensor) -> None:
        rows, chosen = self._rows, positions.view(-1)
        batch = [
            torch.index_select(tensor, 0, chosen).view(*positions.shape, *tensor.shape[1:])
            for tensor in (*self._data.inputs, *self._data.wanted)
        ]
        arguments = (*rows.trained, *rows.buffers, *self._constants, *batch)
        if self._rule.plain:
            *changed, losses = self._program(*arguments, -self._rule.learning_rate)
        else:
            *returned, losses = self._program(*arguments)
            changed = returned[len(rows.trained) :]
            rows.update(list(returned[: len(rows.trained)]), self._rule)
        if changed:
            torch._foreach_copy_(rows.buffers, changed)
        rows.loss_sums.add_(losses)
