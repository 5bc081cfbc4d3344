import os
import signal
import socket
import subprocess
import sys
import threading
import time
from importlib.metadata import PackageNotFoundError

import pytest

from hedgerow.errors import ExtraNotInstalledError, PortInUseError, UnknownNameError
from hedgerow.fleet.brokers.development import DevelopmentBroker, find_mosquitto, mosquitto_config
from hedgerow.fleet.errors import BrokerEndedError, BrokerStartError
from hedgerow.link import Connected, LastWill, Message
from hedgerow.mqtt_link import MqttLink
from hedgerow.wire.topics import Channel, device_topic, fleet_filter, parse_topic

needs_mosquitto = [
    pytest.mark.broker,
    pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed"),
]
BROKERS = [pytest.param("mosquitto", marks=needs_mosquitto), "iotcore"]


@pytest.fixture(params=BROKERS)
def choose(request):
    return request.param


@pytest.fixture
def broker(choose):
    with DevelopmentBroker(choose=choose) as broker:
        yield broker


READY = "ready/"
"""Topics of :func:`until_ready`, which no test looks at."""


def until_ready(link, timeout_s=30.0):
    """Wait until the broker has taken what *link* sent so far: it takes what one client sends in order."""
    probe = f"{READY}{id(link)}"
    link.subscribe(probe)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        link.publish(probe, b"")
        event = link.receive(1.0)
        while event is not None:
            if isinstance(event, Message):
                assert event.topic == probe
                link.acknowledge(event)
                return
            event = link.receive(1.0)
    pytest.fail("the broker did not take what was sent")


def messages(link, count=None, timeout_s=30.0):
    """Return the messages that arrive: the first *count*, or all until the broker has been quiet for a while."""
    found = []
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and (count is None or len(found) < count):
        event = link.receive(0.2 if count is None else deadline - time.monotonic())
        if event is None:
            break
        if isinstance(event, Message):
            link.acknowledge(event)
            if not event.topic.startswith(READY):
                found.append(event)
    return found


def test_it_says_which_broker_runs_and_where(broker, choose):
    assert broker.name.startswith(f"{choose} ")
    assert broker.name.split()[1][0].isdigit()
    assert broker.host == "127.0.0.1"
    assert broker.port > 0
    with socket.create_connection((broker.host, broker.port), timeout=1):
        pass


def test_it_listens_on_loopback_alone(broker):
    addresses = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in {a for a in addresses if not a.startswith("127.")}:
        with pytest.raises(OSError), socket.create_connection((address, broker.port), timeout=1):  # noqa: PT011
            pass


def has_ipv6():
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
def test_it_listens_on_the_loopback_of_ipv6_too(choose):
    with DevelopmentBroker("::1", choose=choose) as broker:
        link = MqttLink("a", "::1", broker.port)

        assert link.receive(30.0) == Connected()
        link.close()


def test_a_port_in_use_is_one_clear_sentence(broker, choose):
    with pytest.raises(PortInUseError, match=f"127.0.0.1:{broker.port}, but another program already does"):
        DevelopmentBroker(port=broker.port, choose=choose).start()


def test_it_starts_again_on_the_port_it_had(choose):
    broker = DevelopmentBroker(choose=choose)
    broker.start()
    port = broker.port
    link = MqttLink("a", broker.host, port)
    broker.stop()
    again = DevelopmentBroker(port=port, choose=choose)

    again.start()

    again.stop()
    link.close()


def test_it_stops_within_two_seconds_although_messages_wait_for_acknowledgement(choose):
    with DevelopmentBroker(choose=choose) as broker:
        link = MqttLink("a", broker.host, broker.port)
        link.subscribe("t")
        assert link.receive(30.0) == Connected()
        link.publish("t", b"never acknowledged")
        assert isinstance(link.receive(30.0), Message)
        began = time.monotonic()

    assert time.monotonic() - began < 2.0
    link.close()


def test_it_says_whether_it_runs_and_stopping_twice_is_harmless(broker):
    assert broker.is_running
    broker.stop()
    assert not broker.is_running
    broker.stop()


def test_a_broker_that_crashed_is_known_not_to_run(choose):
    with DevelopmentBroker(choose=choose) as broker:
        broker.check()
        os.kill(broker_id(broker), signal.SIGKILL)
        deadline = time.monotonic() + 3
        while broker.is_running and time.monotonic() < deadline:
            time.sleep(0.01)

        assert not broker.is_running
        with pytest.raises(
            BrokerEndedError, match=f"{choose}.* to run on at 127.0.0.1:{broker.port}, found that it ended"
        ):
            broker.check()


def broker_id(broker):
    return broker._broker._programs.process_ids["broker"]


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.org", "::"])  # noqa: S104
def test_an_address_that_others_reach_is_refused(host):
    with pytest.raises(
        BrokerStartError, match=r"broker for development to start, found: the address .*, which other machines reach"
    ):
        DevelopmentBroker(host).start()


def test_an_unknown_broker_is_one_clear_sentence():
    with pytest.raises(UnknownNameError, match="did you mean 'mosquitto'"):
        DevelopmentBroker(choose="mosquito")


def test_auto_prefers_mosquitto():
    with DevelopmentBroker() as broker:
        assert broker.name.startswith("mosquitto" if find_mosquitto() else "iotcore")


def test_the_configuration_lets_anybody_in_on_loopback_only_and_bounds_what_is_kept():
    lines = mosquitto_config("127.0.0.1", 1883, "me").splitlines()

    assert "listener 1883 127.0.0.1" in lines
    assert "allow_anonymous true" in lines
    assert "persistence false" in lines
    assert "persistent_client_expiration 1h" in lines
    assert [line.split()[0] for line in lines if line.startswith("max_")] == ["max_queued_messages", "max_packet_size"]


def test_an_embedded_broker_that_is_not_installed_is_one_clear_sentence(monkeypatch):
    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("hedgerow.fleet.brokers.embedded.version", absent)
    with pytest.raises(ExtraNotInstalledError, match=r"a broker where mosquitto is not installed needs .*'iotcore'"):
        DevelopmentBroker(choose="iotcore").start()


def test_a_broker_that_cannot_be_loaded_says_why_and_what_to_do(tmp_path, monkeypatch):
    """As where the wheel is that of another machine."""
    (tmp_path / "iotcore").mkdir()
    (tmp_path / "iotcore" / "__init__.py").write_text("raise ImportError('wrong ELF class')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    with pytest.raises(BrokerStartError, match=r"iotcore .*found: wrong ELF class; install mosquitto"):
        DevelopmentBroker(choose="iotcore").start()


def test_a_broker_dies_with_a_parent_that_is_killed_and_leaves_no_file(choose, tmp_path):
    code = (
        "import time\n"
        "from hedgerow.fleet.brokers.development import DevelopmentBroker\n"
        f"with DevelopmentBroker(choose={choose!r}) as broker:\n"
        "    print(broker.port, flush=True)\n"
        "    time.sleep(60)"
    )
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env)
    port = int(parent.stdout.readline())
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate()

    deadline = time.monotonic() + 3
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            break
        assert time.monotonic() < deadline, "the broker outlived its parent"
        time.sleep(0.02)
    assert list(tmp_path.iterdir()) == []


# What the fleet relies on


def test_messages_reach_those_who_asked_for_them(broker):
    service, device = MqttLink("fleet", broker.host, broker.port), MqttLink("pi-1", broker.host, broker.port)
    service.subscribe(fleet_filter("demo", Channel.REPORTED))
    until_ready(service)
    device.publish(device_topic("demo", "pi-1", Channel.REPORTED), b"1")
    device.publish(device_topic("demo", "pi-1", Channel.EXECUTION), b"not asked for")
    device.publish(device_topic("demo", "pi-1", Channel.REPORTED), b"2")

    assert [(m.topic, m.payload) for m in messages(service, 2)] == [
        ("hedgerow/v1/demo/pi-1/reported", b"1"),
        ("hedgerow/v1/demo/pi-1/reported", b"2"),
    ]
    service.close()
    device.close()


def test_a_retained_message_waits_for_whoever_subscribes_later(broker):
    service, device = MqttLink("fleet", broker.host, broker.port), MqttLink("pi-1", broker.host, broker.port)
    topic = device_topic("demo", "pi-1", Channel.DESIRED)
    service.publish(topic, b"old", retain=True)
    service.publish(topic, b"new", retain=True)
    until_ready(service)
    device.subscribe(topic)

    found = messages(device, 1)

    # Repeats are allowed; receivers look at the version inside.
    assert {(m.topic, m.payload, m.retained) for m in found} == {(topic, b"new", True)}
    service.close()
    device.close()


def test_an_empty_retained_message_clears_it(broker):
    service, device = MqttLink("fleet", broker.host, broker.port), MqttLink("pi-1", broker.host, broker.port)
    service.publish("t", b"x", retain=True)
    service.publish("t", b"", retain=True)
    until_ready(service)
    device.subscribe("t")

    assert messages(device) == []
    service.close()
    device.close()


def test_whoever_connects_gets_no_message_that_it_did_not_ask_for(broker):
    service = MqttLink("fleet", broker.host, broker.port)
    service.subscribe("hedgerow/v1/demo/+/presence")
    service.publish(device_topic("demo", "pi-1", Channel.PRESENCE), b"x", retain=True)
    messages(service, 1)

    device = MqttLink("pi-2", broker.host, broker.port)
    device.subscribe(device_topic("demo", "pi-2", Channel.DESIRED))

    assert messages(device) == []
    service.close()
    device.close()


def test_what_is_outside_the_protocol_is_told_apart_by_its_topic():
    """Users of a link must ask parse_topic, whatever a broker delivers."""
    assert parse_topic("$SYS/broker/uptime") is None
    assert parse_topic("hedgerow/v1/demo/pi-1/desired/extra") is None
    assert parse_topic("hedgerow/v1/demo/pi-1/unknown") is None
    assert parse_topic("hedgerow/v1/demo/pi-1/desired") == ("demo", "pi-1", Channel.DESIRED)


def test_the_will_of_a_broken_link_is_published_and_kept(broker):
    topic = device_topic("demo", "pi-1", Channel.PRESENCE)
    service = MqttLink("fleet", broker.host, broker.port)
    service.subscribe(fleet_filter("demo", Channel.PRESENCE))
    device = MqttLink("pi-1", broker.host, broker.port, will=LastWill(topic, b"gone"), uniform=lambda _low, _high: 30.0)
    device.publish(topic, b"here", retain=True)
    assert [m.payload for m in messages(service, 1)] == [b"here"]

    device._client.socket().shutdown(socket.SHUT_RDWR)

    found = messages(service, 1)
    # A subscription and what is kept can cross on their way, and then it comes twice.
    while [m.payload for m in found] == [b"here"]:
        found = messages(service, 1)
    assert [m.payload for m in found] == [b"gone"]
    late = MqttLink("late", broker.host, broker.port)
    late.subscribe(topic)
    assert {m.payload for m in messages(late)} == {b"gone"}
    for link in (service, device, late):
        link.close()


def test_a_link_that_closes_in_order_leaves_no_will(broker):
    service = MqttLink("fleet", broker.host, broker.port)
    service.subscribe("will")
    MqttLink("pi-1", broker.host, broker.port, will=LastWill("will", b"gone")).close()

    assert messages(service) == []
    service.close()


def test_twenty_links_that_connect_at_once_all_work(broker):
    service = MqttLink("fleet", broker.host, broker.port)
    service.subscribe(fleet_filter("demo", Channel.REPORTED))
    service.subscribe(fleet_filter("demo", Channel.PRESENCE))
    links = []

    def join(number):
        device = f"pi-{number}"
        link = MqttLink(device, broker.host, broker.port)
        link.subscribe(device_topic("demo", device, Channel.DESIRED))
        link.publish(device_topic("demo", device, Channel.PRESENCE), b"on", retain=True)
        link.publish(device_topic("demo", device, Channel.REPORTED), device.encode())
        links.append((device, link))

    threads = [threading.Thread(target=join, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    reported = {m.payload.decode() for m in messages(service, 40) if m.topic.endswith("/reported")}
    for thread in threads:
        thread.join()

    assert len(reported) == 20
    for device, _ in links:
        service.publish(device_topic("demo", device, Channel.DESIRED), device.encode(), retain=True)
    for device, link in links:
        assert {m.payload.decode() for m in messages(link, 1)} == {device}
        link.close()
    service.close()
