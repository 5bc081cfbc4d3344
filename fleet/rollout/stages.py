"""Which device moves in which stage of a rollout. Pure and deterministic: the same salt gives the same stages.

Devices are ordered by a salted hash, so that no rollout always picks the same victims and no stage lands on one
uplink (groups in order of creation do: hawkBit issue 1086), and the order is stratified by hardware target, because
each target runs another artifact. Nothing here knows a device's state.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any

from hedgerow.decode import Fields
from hedgerow.wire.topics import NAME

__all__ = ["DeviceFacts", "StagePlan", "StageState", "assign_stages", "joining_stage", "stage_mistakes"]


class StageState(StrEnum):
    """How far a stage is."""

    SCHEDULED = "SCHEDULED"
    RUNNING = "RUNNING"
    FINISHED = "FINISHED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One step of a rollout.

    Attributes:
        name: Such as ``canary``.
        share: Share of all devices that have the release when this stage ends, in (0, 1]: cumulative.
    """

    name: str
    share: float

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values."""
        return {"name": self.name, "share": self.share}

    @classmethod
    def from_fields(cls, fields: Fields) -> "StagePlan":
        """Decode one stage.

        Raises:
            DecodeError: A field is absent, unknown or out of bounds.
        """
        stage = cls(name=fields.text("name", pattern=NAME), share=fields.number("share", minimum=0, maximum=1))
        fields.finish()
        return stage


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What a rollout needs to know of a device.

    Attributes:
        name: Its name.
        target: Its hardware target.
        release: The release that it runs now; None: none.
    """

    name: str
    target: str
    release: str | None


def stage_mistakes(stages: Sequence[StagePlan]) -> list[str]:
    """Return one sentence for everything that is wrong with *stages*."""
    if not stages:
        return ["expected at least one stage, found none"]
    found = [f"the stage {s.name} has the share {s.share:g}, expected (0, 1]" for s in stages if not 0 < s.share <= 1]
    shares = [stage.share for stage in stages]
    if any(left >= right for left, right in pairwise(shares)):
        found.append("the shares of the stages are cumulative and must rise")
    if shares[-1] != 1:
        found.append(f"the last stage must have the share 1, not {shares[-1]:g}")
    if len({stage.name for stage in stages}) != len(stages):
        found.append("two stages have the same name")
    return found


def assign_stages(salt: str, devices: Sequence[DeviceFacts], stages: Sequence[StagePlan]) -> dict[str, int]:
    """Return the stage index of each device.

    After stage ``k`` exactly ``ceil(share_k * n)`` devices are included, so the canary holds at least one device and
    at most its share rounded up. Devices are taken in this order: first one of every target, targets with most
    devices first (an artifact that no canary ran is an untested artifact); then by the rank within their target
    divided by the target's size, which keeps every prefix in proportion. Ranks and ties follow
    ``sha256(salt/device)``.

    Args:
        salt: Such as the rollout's identity.
        devices: Each name once.
        stages: Valid by :func:`stage_mistakes`.
    """
    strata: dict[str, list[tuple[str, str]]] = {}
    for device in devices:
        # A slash cannot be part of a device's name, so no two (salt, device) pairs hash the same text.
        digest = hashlib.sha256(f"{salt}/{device.name}".encode()).hexdigest()
        strata.setdefault(device.target, []).append((digest, device.name))
    places: list[tuple[bool, float, str, str]] = []
    for members in strata.values():
        for rank, (digest, name) in enumerate(sorted(members)):
            first = rank == 0
            place = -float(len(members)) if first else (rank + 0.5) / len(members)
            places.append((not first, place, digest, name))
    order = [name for *_, name in sorted(places)]
    assigned: dict[str, int] = {}
    for index, stage in enumerate(stages):
        # Shares such as 0.07 times 100 exceed the whole number by rounding; that must not cost one device more.
        end = math.ceil(round(stage.share * len(order), 9))
        for name in order[len(assigned) : end]:
            assigned[name] = index
    return assigned


def joining_stage(states: Sequence[StageState]) -> int:
    """Return the stage that a new device joins: the last that has not started, else the last (running) one."""
    scheduled = [index for index, state in enumerate(states) if state is StageState.SCHEDULED]
    return scheduled[-1] if scheduled else len(states) - 1
