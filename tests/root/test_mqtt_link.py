"""The real link: its rules without a broker, and its promises with mosquitto."""

import random
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from hedgerow.errors import BrokerUnreachableError
from hedgerow.link import PAYLOAD_LIMIT_BYTES, Connected, Disconnected, LastWill, LinkEvent, Message
from hedgerow.mqtt_link import MqttLink, decorrelated_jitter
from tests.processes import free_port

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def test_delays_stay_within_the_floor_and_the_ceiling_and_differ():
    uniform = random.Random(0).uniform
    delay_s, delays = 0.0, []
    for _ in range(200):
        delay_s = decorrelated_jitter(delay_s, uniform)
        delays.append(delay_s)

    assert all(0.5 <= delay <= 60.0 for delay in delays)
    assert max(delays) > 20
    assert len(set(delays[:20])) > 10


def test_a_delay_is_drawn_up_to_three_times_the_one_before():
    assert decorrelated_jitter(4.0, lambda _low, high: high) == 12.0
    assert decorrelated_jitter(4.0, lambda low, _high: low) == 0.5
    assert decorrelated_jitter(50.0, lambda _low, high: high) == 60.0


def test_no_broker_is_one_sentence_with_the_address():
    port = free_port()

    with pytest.raises(BrokerUnreachableError, match=f"expected an MQTT broker at 127.0.0.1:{port}, found none"):
        MqttLink("device", "127.0.0.1", port, connect_timeout_s=1.0)


def test_a_topic_that_is_no_text_does_not_end_the_link():
    """No broker should pass it on; this one does, and then sends what is all right."""

    def published(topic: bytes, payload: bytes = b"x") -> bytes:
        length, rest = bytearray(), 2 + len(topic) + len(payload)
        while rest:
            rest, seven_bits = divmod(rest, 128)
            length.append(seven_bits | (0x80 if rest else 0))
        return b"\x30" + bytes(length) + len(topic).to_bytes(2, "big") + topic + payload

    messages = published(b"\xff\xfe") + published(b"\xff", bytes(PAYLOAD_LIMIT_BYTES + 1)) + published(b"a/b")

    def serve(listener: socket.socket) -> None:
        connection, _address = listener.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(b"\x20\x02\x00\x00" + messages)
            connection.recv(1000)

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        link = MqttLink("device", "127.0.0.1", listener.getsockname()[1])
        assert link.receive(5) == Connected()
        assert link.receive(5) == Message("a/b", b"x")
        link.close()
        thread.join(5)


def test_a_listener_that_is_no_broker_is_unreachable_in_bounded_time():
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        started = time.monotonic()

        with pytest.raises(BrokerUnreachableError, match=r"no answer within 0.3 s"):
            MqttLink("device", "127.0.0.1", mute.getsockname()[1], connect_timeout_s=0.3)
        assert time.monotonic() - started < 3


class Broker:
    """A mosquitto of our own, which can be killed and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._configuration = folder / "mosquitto.conf"
        self._configuration.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\n")
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [MOSQUITTO, "-c", str(self._configuration)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        pytest.fail("mosquitto did not start")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def broker(tmp_path):
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed")
    broker = Broker(tmp_path)
    yield broker
    broker.stop()


@pytest.fixture(params=[3, 5], ids=["MQTT 3.1.1", "MQTT 5"])
def version(request):
    return request.param


def wait_for(link: MqttLink, kind: type[LinkEvent], timeout_s: float = 10.0) -> LinkEvent | None:
    deadline = time.monotonic() + timeout_s
    while (left := deadline - time.monotonic()) > 0:
        event = link.receive(left)
        if isinstance(event, kind):
            return event
    return None


def subscribe(link: MqttLink, topic: str, probe: str) -> None:
    """Subscribe, and return once the broker has: *probe*, a topic of the subscription, comes back."""
    link.subscribe(topic)
    link.publish(probe, b"probe")
    message = wait_for(link, Message)
    assert message.payload == b"probe"
    link.acknowledge(message)


@pytest.mark.broker
def test_messages_and_retained_messages_arrive(broker, version):
    fleet = MqttLink("fleet", "127.0.0.1", broker.port, version=version)
    assert fleet.receive(0) == Connected()
    fleet.publish("down/1", b"desired", retain=True)
    fleet.close()  # the broker has it now
    device = MqttLink("device", "127.0.0.1", broker.port, version=version)
    assert device.receive(0) == Connected()
    device.subscribe("down/1")

    message = wait_for(device, Message)

    assert (message.topic, message.payload, message.retained) == ("down/1", b"desired", True)
    device.acknowledge(message)
    device.close()
    device.close()


@pytest.mark.broker
def test_a_message_that_is_too_long_reaches_nobody_and_does_not_come_again(broker, version):
    fleet = MqttLink("fleet", "127.0.0.1", broker.port, version=version)
    device = MqttLink("device", "127.0.0.1", broker.port, version=version)
    subscribe(device, "down/1", "down/1")
    fleet.publish("down/1", bytes(PAYLOAD_LIMIT_BYTES + 1))
    fleet.publish("down/1", bytes(PAYLOAD_LIMIT_BYTES))

    message = wait_for(device, Message)
    device.acknowledge(message)
    device.close()
    again = MqttLink("device", "127.0.0.1", broker.port, version=version)

    assert len(message.payload) == PAYLOAD_LIMIT_BYTES
    assert wait_for(again, Message, 0.3) is None
    again.close()
    fleet.close()


@pytest.mark.broker
def test_what_was_not_acknowledged_comes_again_to_the_next_session(broker, version):
    fleet = MqttLink("fleet", "127.0.0.1", broker.port, version=version)
    for attempt in range(3):
        device = MqttLink("device", "127.0.0.1", broker.port, version=version)
        if attempt == 0:
            subscribe(device, "down/1", "down/1")
            fleet.publish("down/1", b"work")
        else:
            device.subscribe("down/1")
        message = wait_for(device, Message, 10.0 if attempt < 2 else 0.3)
        if attempt < 2:
            assert message.payload == b"work"
        else:
            assert message is None
        if attempt == 1:
            device.acknowledge(message)
        device.close()
    fleet.close()


@pytest.mark.broker
def test_a_cut_line_lets_the_will_speak_and_an_orderly_end_does_not(broker, version):
    fleet = MqttLink("fleet", "127.0.0.1", broker.port, version=version)
    subscribe(fleet, "presence/+", "presence/probe")
    orderly = MqttLink(
        "orderly", "127.0.0.1", broker.port, will=LastWill("presence/orderly", b"offline"), version=version
    )
    cut = MqttLink("cut", "127.0.0.1", broker.port, will=LastWill("presence/cut", b"offline"), version=version)
    orderly.close()

    cut._client.socket().shutdown(socket.SHUT_RDWR)

    message = wait_for(fleet, Message)
    assert (message.topic, message.payload) == ("presence/cut", b"offline")
    assert wait_for(cut, Disconnected)
    assert wait_for(cut, Connected)
    cut.close()
    fleet.close()


@pytest.mark.broker
def test_a_second_link_of_the_same_name_takes_over(broker, version):
    first = MqttLink("device", "127.0.0.1", broker.port, version=version)
    second = MqttLink("device", "127.0.0.1", broker.port, version=version)

    assert wait_for(first, Disconnected)
    first.close()
    second.close()


@pytest.mark.broker
def test_a_link_comes_back_by_itself_with_its_subscriptions_and_what_waited(broker, version):
    device = MqttLink("device", "127.0.0.1", broker.port, version=version)
    device.subscribe("t")
    assert wait_for(device, Connected)

    broker.stop()
    assert wait_for(device, Disconnected)
    device.publish("t", b"while down")
    broker.start()

    assert wait_for(device, Connected)
    assert wait_for(device, Message).payload == b"while down"
    device.close()
