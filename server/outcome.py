"""What a run came to: whether its weights are what was asked for, and what became of the updates. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile

from hedgerow.server.errors import NoUpdateError
from hedgerow.server.run_records import RoundRecord

__all__ = ["check_end", "check_round", "refusals", "shown_refusals"]

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


def shown_refusals(refused: Mapping[str, int]) -> str:
    """Return *refused* as people read it, such as ``5 (3 late, 2 count)``."""
    if not refused:
        return "0"
    return f"{sum(refused.values()):,} ({', '.join(f'{count:,} {kind}' for kind, count in refused.items())})"
