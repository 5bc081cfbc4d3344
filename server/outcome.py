"""What a run came to: whether its weights are what was asked for, and what became of the updates. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile

from hedgerow.server.errors import NoUpdateError
from hedgerow.server.run_records import RoundRecord
from hedgerow.task import Task

__all__ = ["BASELINE", "LAST_VALUE", "check_end", "check_round", "refusals", "shown_metrics", "shown_refusals"]

BASELINE = "baseline_"
LAST_VALUE = "last_value_score"
"""Before the key of the score that is reached without looking at the input."""
_EMPTY_ROUNDS = 3
"""So many rounds in a row that used no update end a run."""


def check_round(history: Sequence[RoundRecord], record: RoundRecord, *, last: bool) -> None:
    """Refuse a new round that used no update, if it is one too many or the last one.

    Args:
        history: The rounds before.
        record: The new one.
        last: The run is to end with it: its weights would be presented as those of this round.

    Raises:
        NoUpdateError: With the reasons of all rounds since the last that used an update.
    """
    empty = list(takewhile(lambda each: not each.used, [record, *reversed(history)]))
    if empty and (last or len(empty) >= _EMPTY_ROUNDS):
        raise NoUpdateError(record.round, len(empty), record.failures, refusals(empty))


def check_end(history: Sequence[RoundRecord]) -> None:
    """Refuse to end a run with a round that used no update.

    Raises:
        NoUpdateError: The last round is such a one.
    """
    if history:
        check_round(history[:-1], history[-1], last=True)


def refusals(history: Iterable[RoundRecord]) -> dict[str, int]:
    """Return why updates were not used, in a word -> how many in all rounds, the most frequent first."""
    total: Counter[str] = Counter()
    for record in history:
        total.update(record.refused)
    return dict(total.most_common())


def shown_metrics(task: Task, metrics: Mapping[str, float]) -> tuple[str, ...]:
    """Return a checkpoint's metrics as people read them: the score, the loss and the user's own, then all others.

    Args:
        task: Says what the score is called.
        metrics: Of the checkpoint.
    """
    key, name = task.answers.score_key, task.answers.score_name
    own = {each: value for each, value in metrics.items() if each.partition("[")[0] in {"loss", key, *task.metrics}}
    first = [f"{name} {own.pop(key):.3f}"] if key in own else []
    first += [f"{each} {value:.3f}" for each, value in sorted(own.items())]
    left = set(metrics) - set(own) - {key, f"{BASELINE}{key}", LAST_VALUE}
    more = [", ".join(f"{each} {metrics[each]:.3f}" for each in sorted(left))] if left else []
    baseline = metrics.get(f"{BASELINE}{key}")
    if baseline is not None:
        compared = "" if metrics[key] > baseline else ", which the model does not beat"
        more.append(f"without looking at the input {name} {baseline:.3f}{compared}")
    last = metrics.get(LAST_VALUE)
    if last is not None:
        more.append(f"always the last value {name} {last:.3f}")
    return (", ".join(first), *([f"held out: {'; '.join(more)}"] if more else ()))


def shown_refusals(refused: Mapping[str, int]) -> str:
    """Return *refused* as people read it, such as ``5 (3 late, 2 count)``."""
    if not refused:
        return "0"
    return f"{sum(refused.values()):,} ({', '.join(f'{count:,} {kind}' for kind, count in refused.items())})"
