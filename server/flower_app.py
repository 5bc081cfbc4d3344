"""A ServerApp and a ClientApp for stock Flower: ``flwr run`` trains any Hedgerow task with them, unmodified.

In the app's ``pyproject.toml``::

    [tool.flwr.app.components]
    serverapp = "hedgerow.server.flower_app:server_app"
    clientapp = "hedgerow.server.flower_app:client_app"

    [tool.flwr.app.config]
    task = "examples/digits/task.py:task"
    strategy = "fedavg"
    num-server-rounds = 20
    seed = 0
    out = "runs/digits"          # where the ServerApp leaves the checkpoint; leave it out to keep none

Runs under Flower are Flower's: they are not resumable, and SuperNodes cut the task's data by their ``partition-id``.
Needs torch and Flower.
"""

import logging
import math
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Strategy

from hedgerow.checkpoint import Checkpoint, save_checkpoint
from hedgerow.server.accounting import state_privacy
from hedgerow.server.client_app import make_client_app
from hedgerow.server.errors import RoundFailedError
from hedgerow.server.evaluation import Evaluator
from hedgerow.server.flower import ClientCall, array_record, numpy_arrays
from hedgerow.server.grids.judging import JudgedGrid
from hedgerow.server.outcome import check_round
from hedgerow.server.private_strategy import PrivateMean
from hedgerow.server.replies import ReplyLimits, narrowed
from hedgerow.server.strategies import build_strategy, needed_metrics, privacy_terms
from hedgerow.server.training import initial_weights
from hedgerow.task import load_task

__all__ = ["client_app", "server_app"]

_LOG = logging.getLogger(__name__)
_CLIENTS: dict[tuple[str, int], ClientCall] = {}
_LOCK = threading.Lock()


def _client(run_config: Mapping[str, bool | int | float | str]) -> ClientCall:
    """Return the ClientApp of the run's task; a process makes it once."""
    key = (str(run_config["task"]), int(run_config.get("seed", 0)))
    with _LOCK:
        if key not in _CLIENTS:
            task = load_task(key[0])
            _CLIENTS[key] = make_client_app(task, task.load_data(), seed=key[1])
        return _CLIENTS[key]


def _handle(message: Message, context: Context) -> Message:
    return _client(context.run_config)(message, context)


def _main(grid: Grid, context: Context) -> None:
    """Train the run's task with Flower's own round loop and leave a checkpoint.

    Raises:
        NoUpdateError: Three rounds in a row, or the last one, used no update; there is no checkpoint then.
        RoundFailedError: The updates of a round give no weights.
    """
    config = context.run_config
    seed, name = int(config.get("seed", 0)), str(config.get("strategy", "fedavg"))
    task = load_task(str(config["task"]))
    data = task.load_data()
    evaluator = Evaluator(task, data.held_out, train=data.train)

    def evaluate(_round: int, arrays: ArrayRecord) -> MetricRecord:
        measured = evaluator.measure(narrowed(numpy_arrays(arrays)))
        return MetricRecord({key: value for key, value in measured.items() if np.isfinite(value)})

    rounds = int(config.get("num-server-rounds", 20))
    strategy = build_strategy(name, clients=len(list(grid.get_node_ids())) or 1, learning_rate=task.local.learning_rate)
    terms = privacy_terms(name)
    # As our own runs: what is clipped may be of any length.
    judged = JudgedGrid(grid, ReplyLimits(needed=needed_metrics(name), norm=None if terms is None else math.inf))
    _check_rounds(strategy, judged, rounds)
    result = strategy.start(
        grid=judged,
        initial_arrays=array_record(initial_weights(task, seed)),
        num_rounds=rounds,
        train_config=ConfigRecord({"seed": seed}),
        evaluate_fn=evaluate,
    )
    statement = None
    if terms is not None and isinstance(strategy, PrivateMean):
        statement = state_privacy(terms, strategy.means)
    if statement is not None:
        _LOG.warning("%s", statement.line())
    if "out" not in config:
        return
    weights = narrowed(numpy_arrays(result.arrays))
    checkpoint = Checkpoint(
        weights=weights,
        task=task.name,
        run=f"flower-{context.run_id}",
        round=rounds,
        strategy=name,
        grid="flower",
        seed=seed,
        metrics={key: value for key, value in evaluator.report(weights).items() if np.isfinite(value)},
        privacy=None if statement is None else statement.to_record(),
    )
    save_checkpoint(Path(str(config["out"])) / "checkpoint", checkpoint)


def _check_rounds(strategy: Strategy, judged: JudgedGrid, rounds: int) -> None:
    """Have *strategy* end the run at a bad round, as ours end; Flower's loop goes on whatever becomes of a round."""
    aggregate = strategy.aggregate_train

    def aggregate_train(number: int, replies: Iterable[Message]) -> tuple[ArrayRecord | None, MetricRecord | None]:
        arrays, metrics = aggregate(number, replies)
        if arrays is None:
            judged.made_nothing(number)
        elif not all(np.isfinite(array).all() for array in numpy_arrays(arrays).values()):
            raise RoundFailedError(number, {}, "NaN in the aggregated weights (is a learning rate too large?)")
        *before, last = judged.history(number)
        check_round(before, last, last=number == rounds)
        return arrays, metrics

    setattr(strategy, "aggregate_train", aggregate_train)  # noqa: B010 (a plain assignment is no type's)


server_app = ServerApp()
server_app.main()(_main)

client_app = ClientApp()
client_app.train()(_handle)
client_app.evaluate()(_handle)
