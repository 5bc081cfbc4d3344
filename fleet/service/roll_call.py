"""Who is still there: whom to ask, and who did not answer. Pure, one clock for each device.

A broker says when a device's line breaks, unless the broker itself broke: then nobody says anything, and what it had
kept is of another time. So presence is believed for as long as a device is heard, and after every loss of the
service's own link everybody is asked.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

__all__ = ["RollCall", "RollCallResult"]

_FIRST_REPEAT_S = 5.0


@dataclass(frozen=True, slots=True)
class RollCallResult:
    """What follows from the time that passed.

    Attributes:
        ask: Devices to be asked to report, now.
        gone: Devices that did not answer.
    """

    ask: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Question:
    asked_at: float
    next_at: float
    wait_s: float


class RollCall:
    """Asks silent devices whether they are there.

    Args:
        silence_s: A device that was not heard for so long is asked.
        answer_s: A device that was asked and not heard for so long is gone. Longer than devices take to connect again
            after the broker was away, which is up to a minute.
        at_once: First questions at one time; the rest waits for the next, so that a large fleet does not answer in
            one burst.
        open_limit: Questions that wait for an answer at one time.
    """

    def __init__(self, silence_s: float, answer_s: float, *, at_once: int = 500, open_limit: int = 10_000) -> None:
        self._silence_s, self._answer_s, self._at_once, self._open_limit = silence_s, answer_s, at_once, open_limit
        self._doubted_at = -math.inf
        self._doubted: dict[str, float] = {}
        self._questions: dict[str, _Question] = {}

    def doubt_all(self, now: float) -> None:
        """Believe nobody to be there who was not heard since *now*: messages may have been lost."""
        self._doubted_at = now

    def doubt(self, device: str, now: float) -> None:
        """Ask *device*, whatever is known of it."""
        self._doubted.setdefault(device, now)

    def forget(self, device: str) -> None:
        """Ask nothing more of *device*: nobody expects it."""
        self._doubted.pop(device, None)
        self._questions.pop(device, None)

    def silent_since(self, now: float) -> float:
        """Return the time after which a device must have been heard, or it is asked."""
        # A clock that was set back: everybody is still doubted, and once.
        self._doubted_at = min(self._doubted_at, now)
        return max(now - self._silence_s, self._doubted_at)

    @property
    def limit(self) -> int:
        """How many devices, the longest silent first, :meth:`take` looks at."""
        return min(self._open_limit, len(self._questions) + self._at_once)

    @property
    def doubted(self) -> tuple[str, ...]:
        """The devices that :meth:`doubt` named and that have not been heard since."""
        return tuple(self._doubted)

    def take(self, last_seen: Mapping[str, float], now: float) -> RollCallResult:
        """Let time pass.

        Args:
            last_seen: When each device was heard last: the first :attr:`limit` that count as present and were not heard
                after :meth:`silent_since`, and those in :attr:`doubted` that are known. Devices that are absent have
                answered or are gone, unless they are doubted.
            now: Seconds, of the clock of *last_seen*.
        """
        self._doubted = {name: at for name, at in self._doubted.items() if last_seen.get(name, 0.0) <= at <= now}
        open_now = {name: at for name, at in last_seen.items() if at <= self.silent_since(now)}
        open_now |= {name: last_seen.get(name, 0.0) for name in self._doubted}
        # A clock that was set back starts every question anew.
        questions = {n: q for n, q in self._questions.items() if n in open_now and open_now[n] < q.asked_at <= now}
        ask, gone, first = [], [], 0
        for name in sorted(open_now, key=lambda name: (open_now[name], name)):
            question = questions.get(name)
            if question is None:
                if first < self._at_once:
                    first += 1
                    questions[name] = _Question(now, now + _FIRST_REPEAT_S, _FIRST_REPEAT_S)
                    ask.append(name)
            elif now - question.asked_at >= self._answer_s:
                gone.append(name)
                del questions[name]
                self._doubted.pop(name, None)
            elif now >= question.next_at:
                wait_s = question.wait_s * 2
                questions[name] = replace(question, next_at=now + wait_s, wait_s=wait_s)
                ask.append(name)
        self._questions = questions
        return RollCallResult(tuple(ask), tuple(gone))
