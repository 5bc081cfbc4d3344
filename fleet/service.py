"""The fleet service: one thread that owns all writes, takes messages, time and commands, and applies the pure rules.

Everything is saved before it is published, and acknowledged after it was saved: a crash repeats a message, never
loses one. What the thread does is in registry.py, rollout_driver.py and telemetry_intake.py; here is the order.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from hedgerow.decode import Fields  # noqa: F401
from hedgerow.errors import DecodeError, LinkError
from hedgerow.fleet.alerts import Alert
from hedgerow.fleet.catalogue import Catalogue
from hedgerow.fleet.consequences import Consequences
from hedgerow.fleet.errors import InvalidTransitionError, UnknownDeviceError, UnknownRolloutError
from hedgerow.fleet.events import DeviceChanged, FleetEvent, UpdateArrived
from hedgerow.fleet.nudges import Nudges
from hedgerow.fleet.registry import Device, next_desired, reports_success, take_presence, take_report
from hedgerow.fleet.rollout import Approved, Canceled, Event, Paused, Resumed, Rollout, RolloutPlan
from hedgerow.fleet.rollout_driver import RolloutDriver
from hedgerow.fleet.settings import FleetSettings
from hedgerow.fleet.store import Store
from hedgerow.fleet.store_reader import StoredWindow, TrainingRun
from hedgerow.fleet.telemetry_intake import TelemetryIntake
from hedgerow.link import Connected, Link, LinkEvent, Message
from hedgerow.wire import (
    Channel,
    Desired,
    Execution,
    ExecutionState,
    Presence,
    Reported,
    Telemetry,
    TrainUpdate,
    device_topic,
    fleet_filter,
    parse_topic,
)

__all__ = ["FleetService"]

T = TypeVar("T")

_log = logging.getLogger(__name__)
_HEARD = (Channel.REPORTED, Channel.PRESENCE, Channel.EXECUTION, Channel.TELEMETRY, Channel.UPDATE)
_COMMAND_TIMEOUT_S = 60.0
