"""Everything the fleet service can be told, in one frozen object, built from sources that are handed in."""

from dataclasses import dataclass, field
from typing import ClassVar

from hedgerow.fleet.errors import ServiceSettingsError
from hedgerow.settings import HOST, Bound, Settings, at_least, between, matching, told
from hedgerow.wire.topics import NAME

__all__ = ["FleetSettings"]

_PORT = between(0, 65535, "a port from 0 to 65535")
_LONGEST_S = 1e9
_TIME = between(0, _LONGEST_S, f"a time above 0 and at most {_LONGEST_S:g}", is_open=True)
_PAUSE = between(0, _LONGEST_S, f"a time from 0 to {_LONGEST_S:g}")
_PROBABILITY = Bound("a probability between 0 and 1", lambda value: 0 < value < 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSettings(Settings):
    """What one fleet service does; every time is in seconds, at most 1e9: some thirty years, which is "never" here.

    Raises:
        ServiceSettingsError: A value is outside its bounds.
    """

    PREFIX: ClassVar[str] = "HEDGEROW_FLEET_"

    fleet: str = field(
        default="fleet", metadata=told("name of the fleet, the third level of every topic", matching(NAME))
    )
    host: str = field(
        default="127.0.0.1",
        metadata=told("address that the HTTP server listens on", HOST, flag="--host", metavar="HOST"),
    )
    port: int = field(
        default=8080,
        metadata=told("port that the HTTP server listens on; 0 takes a free one", _PORT, flag="--port", metavar="PORT"),
    )
    broker_host: str = field(default="127.0.0.1", metadata=told("MQTT broker host name", HOST, flag="--broker"))
    broker_port: int = field(default=1883, metadata=told("MQTT broker port", _PORT, flag="--broker"))
    seed: int = field(default=0, metadata=told("seed of the permutation tests", at_least(0)))
    tick_s: float = field(default=0.05, metadata=told("longest wait of the service thread between two looks", _TIME))
    batch_events: int = field(default=64, metadata=told("link events that share one transaction, at most", at_least(1)))
    nudge_s: float = field(
        default=5.0, metadata=told("first wait before an unanswered assignment is published again; it doubles", _TIME)
    )
    nudge_longest_s: float = field(default=120.0, metadata=told("longest wait between two such publications", _TIME))
    device_limit: int = field(
        default=100_000, metadata=told("devices that are taken in; further names are ignored", at_least(1))
    )
    presence_silence_s: float = field(
        default=900.0, metadata=told("a device that is not heard for so long is asked whether it is there", _TIME)
    )
    presence_answer_s: float = field(
        default=90.0, metadata=told("a device that is asked and not heard for so long counts as offline", _TIME)
    )
    recent_windows: int = field(default=200, metadata=told("windows kept for each device", at_least(1)))
    merge_period_s: float = field(default=300.0, metadata=told("length of one period of merged windows", _TIME))
    drift_alpha: float = field(
        default=0.01, metadata=told("chance of a false drift alert over a release's life", _PROBABILITY)
    )
    drift_minimum_js: float = field(
        default=0.1, metadata=told("smallest Jensen-Shannon divergence, in bits, that can raise an alert", at_least(0))
    )
    drift_minimum_unseen: float = field(
        default=0.05,
        metadata=told(
            "smallest share of values where the reference has next to none that can raise an alert too",
            Bound("a share above 0 and at most 1", lambda value: 0 < value <= 1),
        ),
    )
    drift_minimum_samples: int = field(
        default=50, metadata=told("a slice with fewer samples is not tested", at_least(0))
    )
    drift_consecutive: int = field(
        default=2, metadata=told("looks in a row that must agree before an alert", at_least(1))
    )
    score_alpha: float = field(
        default=0.01, metadata=told("chance of a false score alert over a release's life", _PROBABILITY)
    )
    baseline_samples: int = field(
        default=200, metadata=told("samples that make a device's own baseline under a retrained release", at_least(1))
    )
    retrain_on_alert: bool = field(default=True, metadata=told("start retraining when a drift alert is raised"))
    retrain_needs_approval: bool = field(default=False, metadata=told("ask a person before retraining starts"))
    retrain_cool_down_s: float = field(
        default=3600.0,
        metadata=told("shortest time between the end of one retraining and the start of the next", _PAUSE),
    )
    retrain_longest_cool_down_s: float = field(
        default=86400.0,
        metadata=told("bound of that time, which doubles while retrainings bring no recovery", _PAUSE),
    )
    retrain_most_failures: int = field(
        default=5,
        metadata=told("retrainings in a row without recovery, after which only an alert is left", at_least(1)),
    )
    retrain_minimum_devices: int = field(
        default=2, metadata=told("fewest devices that a round of a retraining starts with", at_least(1))
    )
    retrain_rounds: int = field(default=10, metadata=told("federated rounds of a retraining", at_least(1)))
    retrain_timeout_s: float = field(default=120.0, metadata=told("longest wait for the devices of one round", _TIME))

    @classmethod
    def refused(cls, place: str, value: str, expected: str) -> ServiceSettingsError:
        """Return the error of a setting."""
        return ServiceSettingsError(place, value, expected)
