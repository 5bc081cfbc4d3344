"""All clients of a cohort in one step: stacked weights, a traced graph, samples gathered on the device. Needs torch."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import fx

from hedgerow.closing import Closing
from hedgerow.local_work import LocalWork, Optimizer
from hedgerow.server.cohort.clients import ClientIndex
from hedgerow.server.cohort.convolution import ConvolutionChoice
from hedgerow.server.cohort.engine import CohortUpdate, StackedWeights, Weights
from hedgerow.server.cohort.errors import UntraceableError
from hedgerow.server.cohort.memory import fitting_clients, free_bytes, is_out_of_memory, run_in_slices, weights_bytes
from hedgerow.server.cohort.orders import count_steps, sample_orders
from hedgerow.server.cohort.replay import Program, ReplayedStep
from hedgerow.server.cohort.results import Results, SentWeights
from hedgerow.server.cohort.schedule import plan_segments
from hedgerow.server.cohort.sequential import ResidentData
from hedgerow.server.cohort.simplify import update_in_place
from hedgerow.server.cohort.stacked import StackedState, StepRule, adam_rates
from hedgerow.server.cohort.tracing import ClientModel, peak_bytes, trace_step
from hedgerow.server.local_steps import draws_random_numbers, torch_threads
from hedgerow.task import Dataset, Task

__all__ = ["VectorizedEngine"]

_PROBE_ROWS = 2
_STEP_FACTOR = 2.5
"""What a step takes of memory, over the sum of its live tensors: libraries reorder what they convolve (measured 1.0 for
dense models to 2.5 for ResNet-8)."""

_PARALLEL_BYTES = 32 * 2**20
"""Below this many bytes of live tensors a step runs on one thread. On a busy machine threads wait for each other: four
took 0.5 s for a round of ten small networks that one takes in 2 ms."""


class VectorizedEngine(Closing):
    """Trains all clients of a slice in the same steps.

    Args:
        task: What to learn.
        dataset: The samples of all clients.
        clients: Who owns which.
        device: Torch's name of it.
        compiled: Compile the traced step with torch's compiler; None: do not (on a CPU it took 11 to 20 s and made
            steps of dense and convolutional models 0.7 to 1.1 times as fast).
        convolution: How convolutions are computed; None: see :class:`ConvolutionChoice`.
        slice_clients: So many at once at most; None: what free memory holds.

    Attributes:
        choices: What was chosen, for records: names of settings and convolutions -> choice.

    Raises:
        UntraceableError: The model draws random numbers in training, or cannot be traced for many clients.
    """

    name = "vectorized"

    def __init__(
        self,
        task: Task,
        dataset: Dataset,
        clients: ClientIndex,
        *,
        device: str = "cpu",
        compiled: bool | None = None,
        convolution: Literal["grouped", "unfolded"] | None = None,
        slice_clients: int | None = None,
    ) -> None:
        if draws_random_numbers(task, dataset):
            raise UntraceableError(task.name, "each client would have to draw its own random numbers")
        self._task, self._clients, self._device = task, clients, device
        self._compiled, self._limit = bool(compiled), slice_clients
        self.choices: dict[str, str] = {"compiled": "yes" if compiled else "no"}
        self._choice = ConvolutionChoice(torch.device(device).type, convolution, self.choices)
        self._data = ResidentData(task, dataset, device)
        self._model = ClientModel(task, device)
        self._traces: dict[tuple[int, int], fx.GraphModule] = {}
        self._programs: dict[tuple[int, int, bool], Program] = {}
        self._steps: dict[tuple[int, int, StepRule], ReplayedStep] = {}
        self._state: StackedState | None = None
        probe = self._trace(_PROBE_ROWS, min(task.local.batch_size, len(dataset)))
        self._step_bytes = peak_bytes(probe) // _PROBE_ROWS

    def close(self) -> None:
        """Let go of graphs and state."""
        self._traces.clear()
        self._programs.clear()
        self._steps.clear()
        self._state = None

    def train(
        self,
        weights: Weights,
        clients: Sequence[int],
        work: LocalWork,
        *,
        each: bool,
        corrections: StackedWeights | None = None,
    ) -> Iterator[CohortUpdate]:
        """Train *clients* from *weights*; see :class:`hedgerow.server.cohort.engine.CohortEngine`.

        Raises:
            CohortMemoryError: Memory does not hold one client.
            UntraceableError: The model cannot be traced with this batch size.
        """
        rule = StepRule.of(work, corrected=bool(corrections))

        def run(rows: Sequence[int]) -> CohortUpdate:
            part = _Part(
                [clients[row] for row in rows],
                {name: stack[rows[0] : rows[-1] + 1] for name, stack in (corrections or {}).items()},
            )
            try:
                with torch_threads(self._threads(len(rows))):
                    return self._train_part(weights, part, work, rule, each=each)
            except BaseException as exc:
                # Its size did not fit, or it is half trained.
                self._forget()
                if is_out_of_memory(exc):
                    self._limit = max(1, len(rows) // 2)
                raise

        limit = self._limit or self._fitting(weights, rule, work, each=each)
        return run_in_slices(range(len(clients)), limit, run, device=self._device)

    def _train_part(
        self, weights: Weights, part: "_Part", work: LocalWork, rule: StepRule, *, each: bool
    ) -> CohortUpdate:
        counts = count_steps(self._clients, part.clients, work)
        longest_first = np.argsort(-counts, kind="stable")
        ordered = [part.clients[place] for place in longest_first]
        segments = plan_segments(counts[longest_first].tolist())
        most_steps, most_rows = segments[-1].end, segments[0].rows
        state = self._stack(most_rows, rule)
        steps = [self._step(segment.rows, work.batch_size, rule, state) for segment in segments]
        sent = self._sent(weights)
        places = torch.from_numpy(longest_first).to(self._device)
        corrections = [part.corrections[name][places] for name in self._model.trained] if rule.corrected else []
        state.fill(sent.trained, sent.buffers, corrections)
        orders = sample_orders(self._clients, ordered, work, steps=most_steps, rows=most_rows)
        positions = torch.from_numpy(orders).to(self._device)
        examples = np.array([self._clients.size(client) for client in part.clients], dtype=np.int64)
        shares = torch.from_numpy(examples / examples.sum()).to(self._device, torch.float32)
        results = Results(sent, places, shares, work.clip_norm, each=each)
        rates = torch.tensor(adam_rates(rule.learning_rate, most_steps), device=self._device)
        with torch.no_grad():
            for segment, step in zip(segments, steps, strict=True):
                for number in range(segment.first, segment.end):
                    if rule.optimizer == Optimizer.ADAM:
                        state.rates.copy_(rates[number])
                    step(positions[number, : segment.rows])
                results.take(state, segment.finished)
        named = self._named(results, weights, len(ordered) if each else None)
        return CohortUpdate(
            clients=tuple(part.clients),
            examples=examples,
            losses=results.losses.double().cpu().numpy() / counts,
            norms=results.norms.double().cpu().numpy(),
            mean=None if each else named,
            each=named if each else None,
        )

    def _sent(self, weights: Weights) -> SentWeights:
        model = self._model
        if set(weights) != set(model.tensors):
            differing = sorted(set(weights) ^ set(model.tensors))
            raise ValueError(f"the weights are another model's: {', '.join(differing[:5])}")
        for name in (*model.trained, *model.buffers, *model.constants):
            if weights[name].shape != model.tensors[name].shape:
                raise ValueError(
                    f"{name} has the shape {tuple(weights[name].shape)}, the model {tuple(model.tensors[name].shape)}"
                )
        for name in model.constants:
            model.tensors[name].copy_(weights[name])
        return SentWeights(
            [weights[name].to(model.tensors[name]) for name in model.trained],
            [weights[name].to(model.tensors[name]) for name in model.buffers],
        )

    def _named(self, results: Results, weights: Weights, clients: int | None) -> dict[str, torch.Tensor]:
        model = self._model
        found = dict(zip((*model.trained, *model.buffers), (*results.trained, *results.buffers), strict=True))
        for name in model.constants:
            tensor = weights[name].to(model.tensors[name])
            found[name] = tensor.clone() if clients is None else tensor.expand(clients, *tensor.shape)
        return {name: found[model.aliases[name]] for name in weights}

    def _stack(self, rows: int, rule: StepRule) -> StackedState:
        state = self._state
        if state is None or state.capacity < rows or not state.suits(rule):
            self._forget()
            model = self._model
            trained = [model.tensors[name] for name in model.trained]
            state = StackedState(trained, [model.tensors[name] for name in model.buffers], rows, rule)
            self._state = state
        return state

    def _forget(self) -> None:
        """Free the state and what was made for it; captured steps know its addresses."""
        self._steps.clear()
        self._state = None
        if torch.device(self._device).type == "cuda":
            torch.cuda.empty_cache()

    def _step(self, rows: int, batch: int, rule: StepRule, state: StackedState) -> ReplayedStep:
        key = rows, batch, rule
        if key not in self._steps:
            # A strategy that changes the learning rate has a new rule in every round; captured steps hold memory.
            self._steps = {known: step for known, step in self._steps.items() if known[2] == rule}
            constants = [self._model.tensors[name] for name in self._model.constants]
            program = self._program(rows, batch, plain=rule.plain)
            step = ReplayedStep(program, state.first(rows), constants, self._data, rule)
            step.capture(batch)
            self._steps[key] = step
        return self._steps[key]

    def _program(self, rows: int, batch: int, *, plain: bool) -> Program:
        key = rows, batch, plain
        if key not in self._programs:
            graph = copy.deepcopy(self._trace(rows, batch))
            if plain:
                update_in_place(graph, len(self._model.trained))
            self._programs[key] = torch.compile(graph, fullgraph=True, dynamic=False) if self._compiled else graph
        return self._programs[key]

    def _trace(self, rows: int, batch: int) -> fx.GraphModule:
        key = rows, batch
        if key not in self._traces:
            chosen = torch.arange(rows * batch, device=self._device) % len(self._data)
            inputs, wanted = (
                [tensor[chosen].view(rows, batch, *tensor.shape[1:]) for tensor in tensors]
                for tensors in (self._data.inputs, self._data.wanted)
            )
            self._traces[key] = trace_step(self._model, rows, inputs, wanted, self._choice)
        return self._traces[key]

    def _threads(self, clients: int) -> int:
        """Return how many of the caller's threads a step of *clients* uses: starting them costs more than it."""
        return torch.get_num_threads() if clients * self._step_bytes >= _PARALLEL_BYTES else 1

    def _fitting(self, weights: Weights, rule: StepRule, work: LocalWork, *, each: bool) -> int:
        """Return how many clients fit into memory: copies of the weights, and what a step needs besides."""
        copies = 2 + rule.moments + int(each) + int(rule.corrected) + int(bool(rule.proximal_mu))
        scale = work.batch_size / min(self._task.local.batch_size, len(self._data))
        client = copies * weights_bytes(weights) + int(_STEP_FACTOR * self._step_bytes * max(1.0, scale))
        return fitting_clients(free_bytes(self._device), client)


@dataclass(frozen=True, slots=True)
class _Part:
    """Clients of one slice, and their corrections in the same order."""

    clients: list[int]
    corrections: StackedWeights
