"""The client against a real server whose service is held up."""

import socket
import threading
import time
from contextlib import closing, contextmanager
from itertools import count

import httpx
import pytest

from hedgerow.fleet.errors import (
    AdminKeyError,
    CommandUnderWayError,
    RefusedRequestError,
    ServiceUnreachableError,
    UnknownCommandError,
)
from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.service.events import RolloutChanged
from hedgerow.fleet.web.admin_keys import hash_key, make_key
from hedgerow.fleet.web.api import create_app
from hedgerow.fleet.web.client import ApiClient
from hedgerow.fleet.web.server import HttpServer
from tests.fleet.service.test_writer import held_up
from tests.fleet.virtual_fleet import VirtualFleet

WAITING = {"release": "toy@1", "plan": {"needs_approval": True}}


class Served:
    def __init__(self, folder):
        self.fleet = VirtualFleet(folder, devices=2, tick_s=0.01, command_timeout_s=0.3)
        self.fleet.settle()
        self.key = make_key()
        self.service = self.fleet.service
        self.service.store.add_admin_key(hash_key(self.key), "first", 0.0)
        self.service.start()
        self.server = HttpServer(create_app(self.service, FleetFolder(folder)), "127.0.0.1", 0).start()
        self.pauses = []
        self.client = ApiClient(self.server.url, self.key, pause=self.pauses.append)

    def another_client(self, **options):
        return closing(ApiClient(self.server.url, self.key, **options))

    def post(self, path, body, **headers):
        headers["Authorization"] = f"Bearer {self.key}"
        return httpx.post(f"{self.server.url}{path}", json=body, headers=headers, trust_env=False, timeout=20)

    @contextmanager
    def slow(self):
        """Hold the service's thread after a rollout was saved and before its answer is given."""
        released = threading.Event()

        def hold(event):
            if isinstance(event, RolloutChanged):
                released.wait(30)

        end = self.service.subscribe(hold)
        try:
            yield released
        finally:
            released.set()
            end()


@pytest.fixture
def served(tmp_path):
    made = Served(tmp_path)
    yield made
    made.client.close()
    made.server.stop()
    made.service.stop()


def test_a_service_that_cannot_begin_answers_503_and_does_nothing(served):
    with held_up(served.service):
        answer = served.post("/v1/rollouts", WAITING)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert "nothing was done and nothing will be" in answer.json()["detail"]
        with pytest.raises(RefusedRequestError, match="ask again") as caught:
            served.client.post("/v1/rollouts", WAITING)
        assert caught.value.status == 503
    assert served.client.get("/v1/rollouts") == []


def test_a_service_that_takes_long_answers_202_and_where_to_ask(served):
    with served.slow() as released:
        answer = served.post("/v1/rollouts", WAITING, **{"Idempotency-Key": "mine"})
        assert (answer.status_code, answer.headers["location"]) == (202, "/v1/commands/mine")
        found = served.client.get("/v1/commands/mine")
        assert (found["state"], found["answer"], found["problem"]) == ("running", None, None)
        released.set()
    again = served.post("/v1/rollouts", WAITING, **{"Idempotency-Key": "mine"})
    assert (again.status_code, again.json()["id"]) == (201, "rollout-1")
    assert served.client.get("/v1/commands/mine")["answer"] == again.json()
    assert len(served.client.get("/v1/rollouts")) == 1


def test_the_client_follows_what_takes_long_to_its_end(served):
    with served.slow() as released, served.another_client(pause=lambda _s: released.set()) as client:
        rollout = client.post("/v1/rollouts", WAITING)
    assert rollout["state"] == "AWAITING_APPROVAL"
    assert [known["id"] for known in served.client.get("/v1/rollouts")] == [rollout["id"]]


def test_the_client_says_what_is_still_under_way_after_its_patience(served):
    now = iter(range(0, 10_000, 40))
    with (
        served.another_client(clock=lambda: float(next(now)), pause=served.pauses.append) as client,
        served.slow(),
        pytest.raises(CommandUnderWayError, match="do not ask for it again"),
    ):
        client.post("/v1/rollouts", WAITING)


class LossyLine:
    """A transport that loses the answers to the first requests; then the command is done."""

    def __init__(self, lost):
        self.lost, self.asked, self.pauses = lost, [], []
        self.client = ApiClient(
            "http://fleet", "key", transport=httpx.MockTransport(self), clock=self.clock, pause=self.pauses.append
        )

    def clock(self):
        return sum(self.pauses) * 20

    def __call__(self, request):
        self.asked.append(request.method)
        if len(self.asked) <= self.lost:
            raise httpx.ReadTimeout("timed out", request=request)
        return httpx.Response(200, json={"state": "done", "answer": {"id": "rollout-1"}})


def test_an_answer_that_is_lost_again_is_asked_for_again():
    line = LossyLine(lost=4)

    assert line.client.post("/v1/rollouts", WAITING) == {"id": "rollout-1"}
    assert line.asked == ["POST", "GET", "GET", "GET", "GET"]


def test_answers_that_stay_lost_are_given_up_after_a_minute():
    line = LossyLine(lost=1000)

    with pytest.raises(ServiceUnreachableError, match="timed out"):
        line.client.post("/v1/rollouts", WAITING)
    assert 60 < line.clock() <= 70
    assert len(line.asked) == len(line.pauses) + 2


class Impatient(httpx.BaseTransport):
    """Gives up a POST as soon as the service knows the command; everything else is waited for."""

    def __init__(self, service):
        self.service, self.real, self.threads = service, httpx.HTTPTransport(), []

    def handle_request(self, request):
        if request.method != "POST":
            return self.real.handle_request(request)
        request.read()
        sent = {"content": request.content, "headers": request.headers, "trust_env": False, "timeout": 30}
        self.threads.append(threading.Thread(target=httpx.post, args=(request.url,), kwargs=sent))
        self.threads[-1].start()
        while True:
            try:
                self.service.command(request.headers["Idempotency-Key"])
            except UnknownCommandError:
                time.sleep(0.005)
            else:
                raise httpx.ReadTimeout("timed out")

    def close(self):
        for thread in self.threads:
            thread.join()
        self.real.close()


@pytest.fixture
def impatient(served):
    served.service.writer.timeout_s = 30
    return lambda pause: served.another_client(transport=Impatient(served.service), pause=pause)


def test_the_client_asks_for_the_answer_that_it_did_not_wait_for(served, impatient):
    """The line is silent for longer than the client waits; what it asked for is done once."""
    with served.slow() as released, impatient(lambda _s: released.set()) as client:
        rollout = client.post("/v1/rollouts", WAITING)
    assert rollout["id"] == "rollout-1"
    assert len(served.client.get("/v1/rollouts")) == 1


def test_what_was_refused_after_the_client_gave_up_is_told_as_a_refusal(served, impatient):
    with (
        held_up(served.service) as release,
        impatient(lambda _s: release.set()) as client,
        pytest.raises(RefusedRequestError, match="toy@9") as caught,
    ):
        client.post("/v1/rollouts", {"release": "toy@9"})
    assert caught.value.status == 404


def test_a_line_that_breaks_after_the_request_is_not_called_a_service_that_is_absent(served):
    """Nobody knows then whether it was done; the client does not pretend to."""
    minutes = count(0.0, 30.0)
    with (
        socket.create_server(("127.0.0.1", 0)) as mute,
        closing(ApiClient(f"http://127.0.0.1:{mute.getsockname()[1]}", "x", clock=lambda: next(minutes))) as lost,
    ):
        lost._client.event_hooks = {"request": [lambda request: request.extensions["timeout"].update(read=0.1)]}
        with pytest.raises(ServiceUnreachableError, match="look before you ask again"):
            lost.post("/v1/rollouts", WAITING)


def test_what_failed_in_the_end_is_told_as_it_would_have_been_at_once(served):
    with pytest.raises(RefusedRequestError, match="'unknown'"):
        served.client.get("/v1/commands/unknown")
    answer = served.post("/v1/rollouts", {"release": "toy@9"}, **{"Idempotency-Key": "bad"})
    assert answer.status_code == 404
    known = served.client.get("/v1/commands/bad")
    assert (known["state"], known["problem"]["status"], known["problem"]["detail"]) == (
        "failed",
        404,
        answer.json()["detail"],
    )


def test_a_key_that_was_used_for_something_else_is_refused(served):
    assert served.post("/v1/rollouts", WAITING, **{"Idempotency-Key": "mine"}).status_code == 201
    other = served.post("/v1/rollouts", {"release": "toy@1"}, **{"Idempotency-Key": "mine"})
    assert other.status_code == 422
    assert served.post("/v1/rollouts", WAITING, **{"Idempotency-Key": "two words"}).status_code == 422


def test_errors_are_told_apart(served):
    with closing(ApiClient(served.server.url, "hgk_wrong")) as stranger, pytest.raises(AdminKeyError):
        stranger.get("/v1/rollouts")
    with pytest.raises(RefusedRequestError, match="rollout-9"):
        served.client.get("/v1/rollouts/rollout-9")
    with closing(ApiClient("http://127.0.0.1:9", "x")) as lost, pytest.raises(ServiceUnreachableError):
        lost.post("/v1/rollouts", WAITING)
