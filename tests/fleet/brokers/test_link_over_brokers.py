"""The real link against the brokers that we start, where they differ and where they break."""

import queue
import random
import socket
import threading
import time

import paho.mqtt.client as mqtt
import pytest

from hedgerow.errors import BrokerUnreachableError, LinkError
from hedgerow.fleet.brokers.development import DevelopmentBroker
from hedgerow.link import PAYLOAD_LIMIT_BYTES, Connected, Disconnected, Message
from hedgerow.mqtt_link import MqttLink
from tests.fleet.brokers.test_development import BROKERS, messages, until_ready


@pytest.fixture(params=BROKERS)
def broker(request):
    with DevelopmentBroker(choose=request.param) as broker:
        broker.choose = request.param
        yield broker


def at_once(_low, _high):
    return 0.02


def wait_for(link, kind, timeout_s=30.0):
    deadline = time.monotonic() + timeout_s
    while (left := deadline - time.monotonic()) > 0:
        event = link.receive(left)
        if isinstance(event, kind):
            return event
    pytest.fail(f"no {kind.__name__} came in time")


def cut(link):
    link._client.socket().shutdown(socket.SHUT_RDWR)


def test_a_link_comes_back_after_a_cut_and_hears_what_it_asked_for(broker):
    sender = MqttLink("fleet", broker.host, broker.port)
    link = MqttLink("pi-1", broker.host, broker.port, uniform=at_once)
    link.subscribe("t")
    wait_for(link, Connected)

    cut(link)

    wait_for(link, Disconnected)
    wait_for(link, Connected)
    until_ready(link)
    sender.publish("t", b"after")
    assert {m.payload for m in messages(link, 1)} == {b"after"}
    link.close()
    sender.close()


def test_a_link_comes_back_after_the_broker_was_started_again(broker):
    link = MqttLink("pi-1", broker.host, broker.port, uniform=at_once)
    link.subscribe("t")
    wait_for(link, Connected)
    port = broker.port
    broker.stop()
    wait_for(link, Disconnected)
    link.publish("t", b"while it was down")

    with DevelopmentBroker(port=port, choose=broker.choose):
        wait_for(link, Connected)
        found = messages(link, 1)
        assert [(m.topic, m.payload) for m in found] == [("t", b"while it was down")]
        link.close()


def test_reconnection_delays_grow_while_the_broker_is_away(broker):
    asked = []

    def draw(low, high):
        asked.append((low, high))
        return min(0.02 * len(asked), 0.1)

    link = MqttLink("pi-1", broker.host, broker.port, uniform=draw)
    broker.stop()
    wait_for(link, Disconnected)
    deadline = time.monotonic() + 5
    while len(asked) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)

    link.close()
    assert asked[0] == (0.5, 1.5)
    assert len(asked) >= 4


def test_a_closed_link_is_quiet_and_closes_soon_while_the_broker_is_away(broker):
    link = MqttLink("pi-1", broker.host, broker.port, uniform=lambda _low, _high: 30.0)
    broker.stop()
    wait_for(link, Disconnected)
    began = time.monotonic()

    link.close()
    link.close()

    assert time.monotonic() - began < 2.0
    assert link.receive(0) is None


def test_closing_flushes_what_was_published(broker):
    receiver = MqttLink("fleet", broker.host, broker.port)
    receiver.subscribe("t")
    until_ready(receiver)
    sender = MqttLink("pi-1", broker.host, broker.port)
    for number in range(200):
        sender.publish("t", str(number).encode())

    sender.close()

    found = [int(m.payload) for m in messages(receiver, 200)]
    assert found == list(range(200))
    receiver.close()


def test_a_message_that_was_not_acknowledged_comes_again_after_a_cut(broker):
    sender = MqttLink("fleet", broker.host, broker.port)
    link = MqttLink("pi-1", broker.host, broker.port, uniform=at_once)
    link.subscribe("t")
    until_ready(link)
    sender.publish("t", b"work")
    first = wait_for(link, Message)

    cut(link)
    again = wait_for(link, Message)

    assert (again.topic, again.payload) == (first.topic, first.payload)
    # An acknowledgement of the earlier connection is void, and the repeat's own counts.
    link.acknowledge(first)
    link.acknowledge(again)
    until_ready(link)
    cut(link)
    wait_for(link, Connected)
    assert messages(link) == []
    link.close()
    sender.close()


def test_what_was_sent_while_a_device_was_away_waits_for_it(broker):
    sender = MqttLink("fleet", broker.host, broker.port)
    link = MqttLink("pi-1", broker.host, broker.port)
    link.subscribe("t")
    until_ready(link)
    link.close()
    for number in range(50):
        sender.publish("t", str(number).encode())

    again = MqttLink("pi-1", broker.host, broker.port)

    assert [int(m.payload) for m in messages(again, 50)] == list(range(50))
    again.close()
    sender.close()


def test_retained_state_reaches_a_device_that_was_away_on_every_broker(broker):
    sender = MqttLink("fleet", broker.host, broker.port)
    link = MqttLink("pi-1", broker.host, broker.port, uniform=at_once)
    link.subscribe("t/1")
    wait_for(link, Connected)
    cut(link)
    sender.publish("t/1", b"desired", retain=True)

    assert wait_for(link, Message).payload == b"desired"
    link.close()
    sender.close()


def test_many_threads_may_publish(broker):
    receiver = MqttLink("fleet", broker.host, broker.port)
    receiver.subscribe("t/+")
    until_ready(receiver)
    link = MqttLink("pi-1", broker.host, broker.port)

    def publish(thread):
        for number in range(50):
            link.publish(f"t/{thread}", str(number).encode())

    threads = [threading.Thread(target=publish, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    found = messages(receiver, 200)
    for thread in threads:
        thread.join()

    for n in range(4):
        assert [int(m.payload) for m in found if m.topic == f"t/{n}"] == list(range(50))
    link.close()
    receiver.close()


def test_the_largest_message_of_the_wire_passes(broker):
    receiver = MqttLink("fleet", broker.host, broker.port)
    receiver.subscribe("t")
    until_ready(receiver)
    sender = MqttLink("pi-1", broker.host, broker.port)
    payload = random.Random(0).randbytes(PAYLOAD_LIMIT_BYTES)

    sender.publish("t", payload)

    assert [m.payload == payload for m in messages(receiver, 1)] == [True]
    sender.close()
    receiver.close()


def test_a_broker_passes_a_megabyte_and_a_link_drops_it_and_goes_on(broker):
    """What the wire does not allow reaches other clients of the broker, and no link."""
    found: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    subscribed = threading.Event()
    other = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="other", protocol=mqtt.MQTTv311)
    other.on_message = lambda _client, _userdata, message: found.put(message.payload)
    other.on_subscribe = lambda *_: subscribed.set()
    other.connect(broker.host, broker.port)
    other.loop_start()
    other.subscribe("t", qos=1)
    receiver = MqttLink("fleet", broker.host, broker.port)
    receiver.subscribe("t")
    sender = MqttLink("pi-1", broker.host, broker.port)
    assert subscribed.wait(30)
    until_ready(receiver)
    payload = random.Random(0).randbytes(1_000_000)

    sender.publish("t", payload)
    sender.publish("t", b"after")

    assert [found.get(timeout=30), found.get(timeout=30)] == [payload, b"after"]
    assert [m.payload for m in messages(receiver, 1)] == [b"after"]
    gone = threading.Event()
    other.on_disconnect = lambda *_: gone.set()
    other.disconnect()
    assert gone.wait(5)
    other.loop_stop()
    sender.close()
    receiver.close()


def test_a_dropped_message_between_others_that_wait_for_their_acknowledgement_costs_no_connection(broker):
    """Rumqttd cuts off who acknowledges in another order, and sends everything again over the next connection."""
    receiver = MqttLink("fleet", broker.host, broker.port)
    receiver.subscribe("t")
    until_ready(receiver)
    sender = MqttLink("pi-1", broker.host, broker.port)
    for number in range(12):
        sender.publish("t", b"%d" % number)
        if number % 4 == 1:
            sender.publish("t", bytes(PAYLOAD_LIMIT_BYTES + 1))

    found = messages(receiver, 12)
    for message in found:
        receiver.acknowledge(message)  # a second time, which says nothing to the broker
    sender.publish("t", b"last")

    assert [message.payload for message in found] == [b"%d" % number for number in range(12)]
    assert [message.payload for message in messages(receiver, 1)] == [b"last"]
    assert receiver._connection == 1
    sender.close()
    receiver.close()


def test_a_packet_above_a_mebibyte_is_not_passed_on(broker):
    receiver = MqttLink("fleet", broker.host, broker.port)
    receiver.subscribe("t")
    until_ready(receiver)
    sender = MqttLink("pi-1", broker.host, broker.port, uniform=lambda _low, _high: 30.0)

    sender.publish("t", bytes(1024 * 1024))

    wait_for(sender, Disconnected)
    assert messages(receiver) == []
    sender.close()
    receiver.close()


def test_a_second_connection_with_the_same_name_ends_the_first_and_takes_its_place(broker):
    sender = MqttLink("fleet", broker.host, broker.port)
    first = MqttLink("pi-1", broker.host, broker.port, uniform=lambda _low, _high: 30.0)
    first.subscribe("t")
    wait_for(first, Connected)

    second = MqttLink("pi-1", broker.host, broker.port)

    wait_for(first, Disconnected)
    second.subscribe("t")
    until_ready(second)
    sender.publish("t", b"for the second")
    assert {m.payload for m in messages(second, 1)} == {b"for the second"}
    for link in (first, second, sender):
        link.close()


def test_a_full_outgoing_queue_is_an_error_that_says_so(broker):
    link = MqttLink("pi-1", broker.host, broker.port, uniform=lambda _low, _high: 30.0)
    broker.stop()
    wait_for(link, Disconnected)
    for _ in range(10_000):
        link.publish("t", b"x")

    with pytest.raises(LinkError, match="send it again later"):
        link.publish("t", b"x")
    link.close()


def test_a_refused_connection_is_one_clear_sentence():
    """A server that answers CONNECT with "not authorised" (MQTT 3.1.1 section 3.2.2.3, return code 5)."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse():
            connection, _ = server.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(b"\x20\x02\x00\x05")

        thread = threading.Thread(target=refuse)
        thread.start()
        with pytest.raises(BrokerUnreachableError, match="it refused the connection: Not authorized"):
            MqttLink("pi-1", "127.0.0.1", server.getsockname()[1], connect_timeout_s=5)
        thread.join()


def test_a_name_that_does_not_resolve_is_one_clear_sentence():
    with pytest.raises(BrokerUnreachableError, match=r"expected an MQTT broker at nowhere\.invalid:1883, found none"):
        MqttLink("pi-1", "nowhere.invalid", 1883)
