"""The embedded broker's configuration, and what it does when rumqttd panics."""

import contextlib
import socket
import struct
import time
import tomllib

import pytest

from hedgerow.fleet.brokers.development import DevelopmentBroker
from hedgerow.fleet.brokers.embedded_process import rumqttd_config
from hedgerow.mqtt_link import MqttLink
from tests.fleet.brokers.test_development import broker_id, messages


def test_the_embedded_broker_is_told_where_to_listen_and_how_much_to_keep():
    config = tomllib.loads(rumqttd_config("127.0.0.1", 1883))

    assert set(config) == {"id", "router", "v4"}
    assert [server["listen"] for server in config["v4"].values()] == ["127.0.0.1:1883"]
    assert config["v4"]["1"]["connections"]["max_payload_size"] == 1024 * 1024
    assert config["router"]["max_segment_size"] * config["router"]["max_segment_count"] == 8 * 1024 * 1024


@pytest.mark.parametrize(
    ("host", "listen"), [("::1", "[::1]:1"), ("localhost", "127.0.0.1:1"), ("127.0.0.9", "127.0.0.9:1")]
)
def test_the_embedded_broker_listens_on_an_address(host, listen):
    assert tomllib.loads(rumqttd_config(host, 1))["v4"]["1"]["listen"] == listen


def connect(broker, name, *, cut=False):
    """Connect as a client called *name*; return what is answered, unless the line is cut at once."""
    size = len(name).to_bytes(2)
    body = b"\x00\x04MQTT\x04\x00\x00\x3c" + size + name.encode()
    with socket.create_connection((broker.host, broker.port), timeout=2) as connection:
        connection.sendall(bytes([0x10, len(body)]) + body)
        if cut:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return b""
        try:
            return connection.recv(4)
        except OSError:
            return b""


@pytest.mark.parametrize("cut", [False, True])
def test_the_embedded_broker_lets_clients_in_after_it_met_one_that_makes_it_panic(cut):
    """Left to itself, rumqttd then runs on and never lets anybody in again."""
    with DevelopmentBroker(choose="iotcore") as broker:
        link = MqttLink("pi-1", broker.host, broker.port, uniform=lambda _low, _high: 0.05)
        link.subscribe("t")
        before = broker_id(broker)
        if cut:
            for _ in range(200):
                with contextlib.suppress(OSError):
                    connect(broker, "goes", cut=True)
        else:
            # A name that it refuses without an answer; the second time is the bad one.
            for _ in range(3):
                with contextlib.suppress(OSError):
                    connect(broker, "a/b")

        deadline = time.monotonic() + 5
        answer = b""
        while answer != b"\x20\x02\x00\x00" and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                answer = connect(broker, "next")
            time.sleep(0.02)
        assert answer == b"\x20\x02\x00\x00"
        assert broker.is_running
        assert broker_id(broker) == before
        sender = MqttLink("fleet", broker.host, broker.port)
        sender.publish("t", b"after", retain=True)
        assert {m.payload for m in messages(link, 1, timeout_s=5.0)} == {b"after"}
        link.close()
        sender.close()
