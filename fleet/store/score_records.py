"""Records of what was counted when a prediction could only be right or wrong, and what they are with scores. Pure."""

import json
from typing import Any

__all__ = ["rescored"]

_SAMPLE, _STEPS = 4096, 16


def rescored(text: str) -> str:
    """Return a record of which every window, and every slice of a release's scores, has counts of scores.

    Args:
        text: JSON of a record that was written before, however deep the windows stand in it.
    """
    return json.dumps(_rescored(json.loads(text)), separators=(",", ":"))


def _rescored(value: Any) -> Any:
    if isinstance(value, list):
        return [_rescored(item) for item in value]
    if not isinstance(value, dict):
        return value
    record = {name: _rescored(item) for name, item in value.items()}
    if {"labelled", "correct", "paired"} <= record.keys():
        labelled, correct = record.pop("labelled"), record.pop("correct")
        return record | {"scores": _scores(correct, labelled), "paired": _paired(record["paired"])}
    if {"labelled", "right", "series"} <= record.keys():
        labelled, right = record.pop("labelled"), record.pop("right")
        return record | {"scores": _scores(right, labelled)}
    return record


def _paired(counts: dict[str, int]) -> dict[str, list[int]]:
    equal = counts["both_right"] + counts["both_wrong"]
    return {
        "agreement": _scores(counts["agreed"], counts["agreed"] + counts["disagreed"]),
        "change": _grid({0: counts["only_old_right"], _STEPS: equal, 2 * _STEPS: counts["only_new_right"]}, 2 * _STEPS),
    }


def _scores(right: int, samples: int) -> list[int]:
    return _grid({0: samples - right, _STEPS: right}, _STEPS)


def _grid(samples: dict[int, int], steps: int) -> list[int]:
    return [_SAMPLE * samples.get(point, 0) for point in range(steps + 1)]
