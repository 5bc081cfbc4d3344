"""The service and virtual devices over real brokers: what the fake may be too kind about."""

import threading
import time

import psutil
import pytest

from hedgerow.fleet.brokers.development import DevelopmentBroker, find_mosquitto
from hedgerow.fleet.rollout.state import RolloutState
from hedgerow.fleet.service.fleet_service import FleetService
from hedgerow.fleet.settings import FleetSettings
from hedgerow.fleet.trust.catalogue import MemoryCatalogue
from hedgerow.fleet.virtual_device import VirtualDevice
from hedgerow.link import LastWill, Message
from hedgerow.mqtt_link import MqttLink
from hedgerow.wire.device import Presence
from hedgerow.wire.topics import Channel, device_topic, parse_topic
from tests.fleet.virtual_fleet import CANARY, ONE_STAGE, REFERENCE, TARGETS, make_manifest, make_window

pytestmark = pytest.mark.broker
BROKERS = [
    pytest.param("mosquitto", marks=pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")),
    "iotcore",
]


def wait_for(is_true, timeout_s=20.0):
    deadline = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


class Devices:
    """Virtual devices that live in a thread and send windows of what they run."""

    def __init__(self, host, port, names):
        self._place = host, port
        self.all = {name: self._connect(name, index) for index, name in enumerate(names)}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live)
        self.send_windows = False

    def _connect(self, name, index):
        topic = device_topic("fleet", name, Channel.PRESENCE)
        link = MqttLink(name, *self._place, will=LastWill(topic, Presence(online=False, boot="boot-1").encode()))
        return VirtualDevice(name, TARGETS[index % 2], link)

    def _live(self):
        while not self._stop.is_set():
            for device in self.all.values():
                device.turn()
                if self.send_windows and device.release:
                    correct = 40 if device.release == "toy@3" else 95
                    device.send_window(make_window(device.release, correct=correct, now=time.time()))
            self._stop.wait(0.05)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        for device in self.all.values():
            device.link.close()


@pytest.mark.parametrize("broker", BROKERS)
def test_good_releases_arrive_and_bad_ones_are_taken_back_across_a_restart(tmp_path, broker):
    catalogue = MemoryCatalogue({f"toy@{n}": (make_manifest(f"toy@{n}"), REFERENCE) for n in (1, 2, 3)})
    settings = FleetSettings(nudge_s=1.0)
    names = [f"device-{index}" for index in range(4)]
    with DevelopmentBroker(choose=broker) as running, Devices(running.host, running.port, names) as devices:
        link = MqttLink("hedgerow-fleet", running.host, running.port)
        with FleetService(settings, link, tmp_path / "fleet.db", catalogue) as service:
            wait_for(lambda: sum(device.target is not None for device in service.devices()) == 4)
            first = service.start_rollout("toy@1", ONE_STAGE)
            wait_for(lambda: service.rollout(first.id).state is RolloutState.FINISHED)
            second = service.start_rollout("toy@2", CANARY)
        link.close()
        assert sum(device.release == "toy@2" for device in devices.all.values()) <= 1
        devices.send_windows = True
        link = MqttLink("hedgerow-fleet", running.host, running.port)
        with FleetService(settings, link, tmp_path / "fleet.db", catalogue) as service:
            wait_for(lambda: service.rollout(second.id).state is RolloutState.FINISHED)
            bad = service.start_rollout("toy@3", CANARY)
            wait_for(lambda: service.rollout(bad.id).state is RolloutState.ROLLED_BACK)
            wait_for(lambda: all(device.release == "toy@2" for device in service.devices()))
        link.close()


@pytest.mark.heavy
@pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")
def test_a_device_that_went_down_with_the_broker_is_offline_when_the_broker_is_back(tmp_path):
    """The broker is killed, so no will is published; it comes back on the same port and knows nothing."""
    settings = FleetSettings(presence_answer_s=8.0)
    names = ["device-0", "device-1"]
    broker = DevelopmentBroker(choose="mosquitto")
    broker.start()
    again = DevelopmentBroker(broker.host, broker.port, choose="mosquitto")
    try:
        with Devices(broker.host, broker.port, names) as devices:
            link = MqttLink("hedgerow-fleet", broker.host, broker.port, uniform=lambda low, _high: low)
            with FleetService(settings, link, tmp_path / "fleet.db", MemoryCatalogue()) as service:
                wait_for(lambda: [device.online for device in service.devices()] == [True, True])
                for child in psutil.Process().children(recursive=True):
                    if child.name() == "mosquitto":
                        child.kill()
                wait_for(lambda: not broker.is_running)
                gone = devices.all.pop("device-1")
                gone.link.close()
                again.start()
                began = time.monotonic()
                wait_for(lambda: [device.online for device in service.devices()] == [True, False], timeout_s=60)
                assert time.monotonic() - began >= 8, "nobody said so: it did not answer"
                wait_for(lambda: service.device("device-0").last_seen > service.device("device-1").last_seen)
            link.close()
            # And after a restart of the service, which begins with what its store says.
            link = MqttLink("hedgerow-fleet", broker.host, broker.port)
            with FleetService(settings, link, tmp_path / "fleet.db", MemoryCatalogue()) as service:
                seen = service.device("device-0").last_seen
                wait_for(lambda: service.device("device-0").last_seen > seen)
                assert [device.online for device in service.devices()] == [True, False]
            link.close()
    finally:
        broker.stop()
        again.stop()


def kept_channels(running, device):
    """The channels of a device on which a broker keeps a message."""
    # A name of its own: the broker keeps the session of a client, and what waits in it.
    link = MqttLink(f"probe-{time.monotonic_ns()}", running.host, running.port)
    link.subscribe(f"hedgerow/v1/fleet/{device}/+")
    link.subscribe("hedgerow/v1/fleet/device-0/presence")
    found, deadline = set(), time.monotonic() + 20
    # What is kept of the first subscription comes before what is kept of the second.
    while time.monotonic() < deadline:
        event = link.receive(0.5)
        if isinstance(event, Message):
            _fleet, name, channel = parse_topic(event.topic)
            if name == "device-0":
                break
            found.add(channel)
    link.close()
    return found


@pytest.mark.parametrize("broker", BROKERS)
def test_a_forgotten_device_is_gone_from_the_broker_too(tmp_path, broker):
    """Its last presence was kept, and what was wanted of it: a service that is started anew would hear of both."""
    catalogue = MemoryCatalogue({"toy@1": (make_manifest("toy@1"), REFERENCE)})
    names = ["device-0", "device-1"]
    with DevelopmentBroker(choose=broker) as running, Devices(running.host, running.port, names) as devices:
        link = MqttLink("hedgerow-fleet", running.host, running.port)
        with FleetService(FleetSettings(), link, tmp_path / "fleet.db", catalogue) as service:
            wait_for(lambda: sum(device.target is not None for device in service.devices()) == 2)
            rollout = service.start_rollout("toy@1", ONE_STAGE)
            wait_for(lambda: service.rollout(rollout.id).state is RolloutState.FINISHED)
            gone = devices.all.pop("device-1")
            gone.link.close()
            wait_for(lambda: kept_channels(running, "device-1") == {Channel.DESIRED, Channel.PRESENCE})
            service.forget_device("device-1")
            wait_for(lambda: kept_channels(running, "device-1") == set())
        link.close()
        link = MqttLink("hedgerow-fleet", running.host, running.port)
        with FleetService(FleetSettings(), link, tmp_path / "fleet.db", catalogue) as service:
            seen = service.device("device-0").last_seen
            wait_for(lambda: service.device("device-0").last_seen > seen)
            assert [device.name for device in service.devices()] == ["device-0"]
        link.close()
