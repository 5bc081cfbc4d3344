"""A strategy of a user's own during a run: what it raises and what it gives is judged, and named as its own.

Needs Flower.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import Strategy

from hedgerow.blame import frames, is_library, is_ours
from hedgerow.errors import HedgerowError, PluginError
from hedgerow.server.flower import aggregation_errors, array_record, numpy_arrays

__all__ = ["judge_rounds"]

_NUMBERS = "fiub"
_TRANSPARENT = (__name__, array_record.__module__)
"""What calls a strategy, and what turns its arrays into Flower's: a mistake there is that of who gave them."""


def judge_rounds(strategy: Strategy, name: str) -> None:
    """Have *strategy* raise a :class:`PluginError` wherever its round fails or gives what is no answer.

    Its methods are replaced on this one object, so that whoever calls them, a wrapper or Flower's own loop, meets it.

    Args:
        strategy: Just made.
        name: How the user named it.
    """
    configure: Callable[..., object] = strategy.configure_train
    aggregate: Callable[..., object] = strategy.aggregate_train

    def configure_train(*args: Any, **settings: Any) -> Iterable[Message]:
        with _blamed(name, "configure_train"):
            found = configure(*args, **settings)
            # A generator's mistakes come when it is asked.
            messages: list[object] | None = list(found) if isinstance(found, Iterable) else None
        if messages is None:
            raise _wrong(name, "configure_train", "messages", type(found).__name__)
        return [_message(name, message) for message in messages]

    def aggregate_train(*args: Any, **settings: Any) -> tuple[ArrayRecord | None, MetricRecord | None]:
        with _blamed(name, "aggregate_train"):
            found = aggregate(*args, **settings)
        expected = "an ArrayRecord or None and a MetricRecord or None"
        if not isinstance(found, tuple):
            raise _wrong(name, "aggregate_train", expected, type(found).__name__)
        match found:
            case (ArrayRecord() | None as arrays, MetricRecord() | None as metrics):
                _check_numbers(name, arrays)
                return arrays, metrics
        raise _wrong(name, "aggregate_train", expected, f"({', '.join(type(part).__name__ for part in found)})")

    for method in (configure_train, aggregate_train):
        setattr(strategy, method.__name__, method)


def _message(name: str, found: object) -> Message:
    if not isinstance(found, Message):
        raise _wrong(name, "configure_train", "messages", type(found).__name__)
    return found


def _check_numbers(name: str, arrays: ArrayRecord | None) -> None:
    with _blamed(name, "aggregate_train"):
        held = numpy_arrays(arrays) if arrays is not None else {}
    for array in held.values():
        if array.dtype.kind not in _NUMBERS:
            raise _wrong(name, "aggregate_train", "arrays of numbers", str(array.dtype))


def _wrong(name: str, method: str, expected: str, found: str) -> PluginError:
    return PluginError("strategy", name, f"expected of its {method} {expected}, found {found}; correct it")


@contextmanager
def _blamed(name: str, method: str) -> Iterator[None]:
    """Name the strategy in whatever its method raises, but where a line of ours that it called made the mistake."""
    try:
        yield
    except HedgerowError:
        raise
    except aggregation_errors():
        raise
    # The user's code may raise anything; the report must name it all the same.
    except (Exception, SystemExit) as exc:
        if _is_ours(exc):
            raise
        raised = " ".join(f"{type(exc).__name__}: {exc}".split())
        raise PluginError("strategy", name, f"its {method} raised {raised}; correct it") from exc


def _is_ours(exc: BaseException) -> bool:
    """Say whether the line that was called last, libraries aside, is one of ours."""
    last = ""
    for traceback in frames(exc.__traceback__):
        module = traceback.tb_frame.f_globals.get("__name__", "")
        if module not in _TRANSPARENT and (is_ours(module) or not is_library(traceback.tb_frame.f_code.co_filename)):
            last = module
    return is_ours(last)
