"""Everything the fleet service can be told, in one frozen object, built from a mapping that is handed in."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from hedgerow.fleet.errors import SettingsError
from hedgerow.wire.topics import NAME

__all__ = ["FleetSettings"]

_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def _boolean(text: str) -> bool:
    try:
        return _WORDS[text.strip().lower()]
    except KeyError:
        raise ValueError from None


# By declared type and never by truth: bool("false") is true.
_PARSERS: Mapping[Any, tuple[Callable[[str], Any], str]] = {
    str: (str, "text"),
    int: (int, "a whole number"),
    float: (float, "a number"),
    bool: (_boolean, "true or false"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSettings:
    """What one fleet service does; every time is in seconds.

    Raises:
        SettingsError: A value is outside its bounds.
    """

    fleet: str = field(default="fleet", metadata={"help": "name of the fleet, the third level of every topic"})
    host: str = field(default="127.0.0.1", metadata={"help": "address that the HTTP server listens on"})
    port: int = field(default=8080, metadata={"help": "port that the HTTP server listens on; 0 takes a free one"})
    broker_host: str = field(default="127.0.0.1", metadata={"help": "MQTT broker host name"})
    broker_port: int = field(default=1883, metadata={"help": "MQTT broker port"})
    seed: int = field(default=0, metadata={"help": "seed of the permutation tests"})
    tick_s: float = field(default=0.05, metadata={"help": "longest wait of the service thread between two looks"})
    batch_events: int = field(default=64, metadata={"help": "link events that share one transaction, at most"})
    nudge_s: float = field(
        default=5.0, metadata={"help": "first wait before an unanswered assignment is published again; it doubles"}
    )
    nudge_longest_s: float = field(default=120.0, metadata={"help": "longest wait between two such publications"})
    device_limit: int = field(
        default=100_000, metadata={"help": "devices that are taken in; further names are ignored"}
    )
    presence_silence_s: float = field(
        default=900.0, metadata={"help": "a device that is not heard for so long is asked whether it is there"}
    )
    presence_answer_s: float = field(
        default=90.0, metadata={"help": "a device that is asked and not heard for so long counts as offline"}
    )
    recent_windows: int = field(default=200, metadata={"help": "windows kept for each device"})
    merge_period_s: float = field(default=300.0, metadata={"help": "length of one period of merged windows"})
    drift_alpha: float = field(default=0.01, metadata={"help": "chance of a false drift alert over a release's life"})
    drift_minimum_js: float = field(
        default=0.1, metadata={"help": "smallest Jensen-Shannon divergence, in bits, that can raise an alert"}
    )
    drift_minimum_samples: int = field(default=50, metadata={"help": "a slice with fewer samples is not tested"})
    drift_consecutive: int = field(default=2, metadata={"help": "looks in a row that must agree before an alert"})
    score_alpha: float = field(default=0.01, metadata={"help": "chance of a false score alert over a release's life"})
    baseline_samples: int = field(
        default=200, metadata={"help": "samples that make a device's own baseline under a retrained release"}
    )
    retrain_on_alert: bool = field(default=True, metadata={"help": "start retraining when a drift alert is raised"})
    retrain_needs_approval: bool = field(default=False, metadata={"help": "ask a person before retraining starts"})
    retrain_cool_down_s: float = field(
        default=3600.0, metadata={"help": "shortest time between the end of one retraining and the start of the next"}
    )
    retrain_longest_cool_down_s: float = field(
        default=86400.0, metadata={"help": "bound of that time, which doubles while retrainings bring no recovery"}
    )
    retrain_most_failures: int = field(
        default=5, metadata={"help": "retrainings in a row without recovery, after which only an alert is left"}
    )
    retrain_minimum_devices: int = field(
        default=2, metadata={"help": "fewest devices that a round of a retraining starts with"}
    )
    retrain_rounds: int = field(default=10, metadata={"help": "federated rounds of a retraining"})
    retrain_timeout_s: float = field(default=120.0, metadata={"help": "longest wait for the devices of one round"})

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.fleet):
            raise SettingsError("fleet", self.fleet, f"a name like {NAME.pattern}")
        for name in ("port", "broker_port"):
            if not 0 <= getattr(self, name) <= 65535:
                raise SettingsError(name, str(getattr(self, name)), "a port from 0 to 65535")
        for name in (
            "tick_s",
            "nudge_s",
            "nudge_longest_s",
            "presence_silence_s",
            "presence_answer_s",
            "merge_period_s",
            "retrain_timeout_s",
        ):
            if not getattr(self, name) > 0:
                raise SettingsError(name, str(getattr(self, name)), "a time above 0")
        for name in (
            "batch_events",
            "device_limit",
            "recent_windows",
            "drift_consecutive",
            "retrain_minimum_devices",
            "retrain_most_failures",
            "retrain_rounds",
            "baseline_samples",
        ):
            if getattr(self, name) < 1:
                raise SettingsError(name, str(getattr(self, name)), "at least 1")
        for name in ("drift_alpha", "score_alpha"):
            if not 0 < getattr(self, name) < 1:
                raise SettingsError(name, str(getattr(self, name)), "a probability between 0 and 1")
        for name in (
            "retrain_cool_down_s",
            "retrain_longest_cool_down_s",
            "drift_minimum_js",
            "drift_minimum_samples",
            "seed",
        ):
            if not getattr(self, name) >= 0:
                raise SettingsError(name, str(getattr(self, name)), "at least 0")

    @classmethod
    def from_env(cls, env: Mapping[str, str], prefix: str = "HEDGEROW_FLEET_", **given: Any) -> Self:
        """Build the settings from environment variables such as ``HEDGEROW_FLEET_PORT``.

        Args:
            env: The variables, usually ``os.environ``.
            prefix: What ours begin with.
            given: Values that win over the environment; None counts as not given.

        Raises:
            SettingsError: A variable has our prefix and no setting's name, or a value of another type.
        """
        fields = {setting.name: setting for setting in dataclasses.fields(cls)}
        values: dict[str, Any] = {}
        for variable, text in env.items():
            if not variable.startswith(prefix):
                continue
            name = variable.removeprefix(prefix).lower()
            if name not in fields:
                raise SettingsError(variable, text, f"a setting out of {', '.join(sorted(fields))}")
            parse, expected = _PARSERS[fields[name].type]
            try:
                values[name] = parse(text)
            except ValueError:
                raise SettingsError(variable, text, expected) from None
        values.update({name: value for name, value in given.items() if value is not None})
        return cls(**values)
