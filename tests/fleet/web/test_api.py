"""The admin API over ASGI, in this process."""

import asyncio
import hashlib
import json
import shutil
import sqlite3
import time

import httpx
import pytest

from hedgerow.fleet.errors import CommandNotBegunError
from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.retrain.wire_round import TrainingExchange
from hedgerow.fleet.trust.keys import create_keys, load_signers
from hedgerow.fleet.trust.signing import init_repository
from hedgerow.fleet.trust.tuf_metadata import Lifetimes
from hedgerow.fleet.web.admin_keys import hash_key, make_key
from hedgerow.fleet.web.api import create_app
from tests.fleet.virtual_fleet import VirtualFleet


class Client:
    """Asks an application in this process, one request after the other."""

    def __init__(self, app, headers=None):
        self._app, self._headers = app, headers

    def __getattr__(self, method):
        return lambda path, **request: asyncio.run(self._ask(method.upper(), path, **request))

    async def _ask(self, method, path, **request):
        transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://fleet", headers=self._headers) as client:
            return await client.request(method, path, **request)


class Served:
    def __init__(self, folder):
        self.fleet = VirtualFleet(folder)
        self.fleet.settle()
        self.key = make_key()
        self.fleet.service.store.add_admin_key(hash_key(self.key), "first", 0.0)
        self.exchange = TrainingExchange()
        self.approved = []
        self.folder = FleetFolder(folder)
        self.folder.tuf_metadata.mkdir(parents=True)
        self.folder.tuf_targets.mkdir(parents=True)
        app = create_app(self.fleet.service, self.folder, self.exchange, approve_retraining=lambda: bool(self.approved))
        self.anonymous = Client(app)
        self.client = Client(app, {"Authorization": f"Bearer {self.key}"})


@pytest.fixture
def served(tmp_path):
    made = Served(tmp_path)
    yield made
    made.fleet.service.stop()


def assert_problem(answer, status, *words):
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == status
    assert document["type"].startswith("urn:hedgerow:problem:")
    for word in words:
        assert word in document["detail"]


def test_health_needs_no_key(served):
    answer = served.anonymous.get("/healthz")
    assert answer.status_code == 200
    assert answer.json()["devices"] == 8


@pytest.mark.parametrize("path", ["devices", "devices/device-0", "releases", "rollouts", "alerts", "windows", "runs"])
def test_the_admin_api_answers_nobody_without_the_key(served, path):
    assert_problem(served.anonymous.get(f"/v1/{path}"), 401, "found none")
    assert_problem(served.anonymous.get(f"/v1/{path}", headers={"Authorization": "Bearer guess"}), 401, "found another")
    answer = served.anonymous.get(f"/v1/{path}", headers={"Authorization": "Basic Z3Vlc3M="})
    assert_problem(answer, 401)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert served.client.get(f"/v1/{path}").status_code == 200


def test_devices_and_releases_can_be_seen(served):
    devices = served.client.get("/v1/devices").json()
    assert [device["name"] for device in devices] == [f"device-{index}" for index in range(8)]
    assert devices[0]["online"]
    assert served.client.get("/v1/devices/device-0").json() == devices[0]
    releases = served.client.get("/v1/releases").json()
    assert [entry["release"] for entry in releases] == ["toy@1", "toy@2", "toy@3"]
    assert (releases[0]["outputs"], releases[0]["score"]) == ({"probabilities": "classes"}, "accuracy")
    assert served.client.get("/v1/releases/toy@1").content == served.fleet.catalogue.manifest("toy@1").encode()


def test_the_status_says_which_signatures_end_soon(served):
    create_keys(served.folder)
    shutil.rmtree(served.folder.tuf)
    lifetimes = Lifetimes(root_s=29 * 86400)
    init_repository(served.folder, load_signers(served.folder), time.time(), lifetimes=lifetimes)
    found = served.client.get("/v1/status").json()
    assert (found["fleet"], found["devices"]) == ("fleet", 8)
    assert sorted(found["signatures"]) == ["root", "snapshot", "targets", "timestamp"]
    assert [(alarm["role"], alarm["is_over"]) for alarm in found["alarms"]] == [("root", False)]
    assert_problem(served.anonymous.get("/v1/status"), 401)


def test_a_device_can_be_reset_and_what_was_refused_of_it_is_said(served):
    forged = {
        "v": 1, "boot": "x", "sequence": 0, "desired_version": 0, "release": None, "previous": None,
        "target": "x86-gateway", "agent_version": "1", "runtimes": [],
    }  # fmt: skip
    served.fleet.broker.route("hedgerow/v1/fleet/device-0/reported", json.dumps(forged).encode(), retain=False)
    served.fleet.settle()
    refused = served.client.get("/v1/devices/device-0").json()["refused"]
    assert "x86-gateway" in refused["reason"]
    found = served.client.post("/v1/devices/device-0/reset").json()
    assert (found["target"], found["refused"]) == (None, None)
    served.fleet.settle()
    assert served.client.get("/v1/devices/device-0").json()["target"] == "raspberry-pi-4"
    assert_problem(served.client.post("/v1/devices/nobody/reset"), 404, "nobody")
    assert_problem(served.anonymous.post("/v1/devices/device-0/reset"), 401)


def test_a_device_can_be_forgotten_once(served):
    before = served.client.get("/v1/devices/device-0").json()
    assert_problem(served.anonymous.delete("/v1/devices/device-0"), 401)
    answer = served.client.delete("/v1/devices/device-0", headers={"Idempotency-Key": "once"})
    assert (answer.status_code, answer.json()) == (200, {**before, "desired": None, "refused": None})
    assert served.client.delete("/v1/devices/device-0", headers={"Idempotency-Key": "once"}).json() == answer.json()
    assert served.client.get("/v1/commands/once").json()["answer"] == answer.json()
    assert_problem(served.client.get("/v1/devices/device-0"), 404, "device-0")
    assert_problem(served.client.delete("/v1/devices/device-0"), 404, "device-0")


def test_a_command_that_was_taken_back_says_so_and_is_no_bug(served):
    command, _ = served.fleet.service.writer.commands.admit(lambda _then, _now: None, "late", "reset of device-0")
    with pytest.raises(CommandNotBegunError):
        command.answer(0.0)
    found = served.client.get("/v1/commands/late").json()
    assert (found["state"], found["answer"], found["problem"]["status"]) == ("failed", None, 503)
    assert "nothing was done and nothing will be: ask again" in found["problem"]["detail"]


def test_a_rollout_can_be_started_watched_and_stopped(served):
    plan = {"stages": [{"name": "canary", "share": 0.25}, {"name": "fleet", "share": 1}], "needs_approval": True}
    answer = served.client.post("/v1/rollouts", json={"release": "toy@1", "plan": plan})
    assert answer.status_code == 201
    rollout = answer.json()
    assert rollout["state"] == "AWAITING_APPROVAL"
    place = f"/v1/rollouts/{rollout['id']}"
    assert_problem(served.client.post(f"{place}/pause"), 409)
    assert served.client.post(f"{place}/approve").json()["state"] == "RUNNING"
    assert served.client.post(f"{place}/pause").json()["state"] == "PAUSED"
    assert served.client.post(f"{place}/resume").json()["state"] == "RUNNING"
    served.fleet.settle()
    assert len(served.client.get(place).json()["executions"]) == 8
    assert "executions" not in served.client.get("/v1/rollouts").json()[0]
    assert_problem(served.client.post("/v1/rollouts", json={"release": "toy@2"}), 409, rollout["id"])
    assert served.client.post(f"{place}/abort").json()["state"] == "ROLLED_BACK"
    actors = {entry.actor for entry in served.fleet.service.audit()}
    assert actors == {f"key {hash_key(served.key)[:8]}"}


def test_errors_are_problem_documents_that_say_what_to_do(served):
    assert_problem(served.client.get("/v1/devices/nobody"), 404, "nobody")
    assert_problem(served.client.get("/v1/releases/toy@9"), 404, "toy@9", "toy@1")
    assert_problem(served.client.get("/v1/rollouts/rollout-9"), 404)
    assert_problem(served.client.get("/nowhere"), 404)
    assert_problem(served.client.delete("/v1/devices"), 405)
    assert_problem(served.client.post("/v1/rollouts", json={"release": "toy@9"}), 404)
    assert_problem(served.client.post("/v1/rollouts", json={}), 422, "release")
    assert_problem(served.client.post("/v1/rollouts", json={"release": "toy@1", "force": True}), 422, "force")
    assert_problem(served.client.post("/v1/rollouts", content=b"{"), 422)
    bad = {"release": "toy@1", "plan": {"stages": [{"name": "fleet", "share": 0.5}]}}
    assert_problem(served.client.post("/v1/rollouts", json=bad), 422, "last stage")
    assert_problem(served.client.get("/v1/windows?limit=0"), 422, "limit")


def test_a_bug_becomes_a_problem_that_tells_nothing_of_its_inside(served):
    connection = sqlite3.connect(served.fleet.folder / "fleet.db")
    connection.execute("ALTER TABLE devices RENAME TO moved")
    connection.close()
    answer = served.client.get("/v1/devices")
    assert_problem(answer, 500)
    assert "no such table" not in answer.text


def test_after_the_service_was_stopped_every_question_is_answered_with_that(served):
    served.fleet.service.stop()
    for path in ("/v1/devices", "/v1/rollouts", "/healthz"):
        assert_problem(served.client.get(path), 503, "was stopped")


def test_windows_can_be_filtered(served):
    served.client.post("/v1/rollouts", json={"release": "toy@1", "plan": {"gate": None}})
    served.fleet.settle()
    served.fleet.send_windows("toy@1")
    served.fleet.now += 100
    served.fleet.send_windows("toy@1", only={"device-0"})
    assert len(served.client.get("/v1/windows").json()) == 9
    assert len(served.client.get("/v1/windows?device=device-0").json()) == 2
    assert len(served.client.get("/v1/windows?since=1050").json()) == 1
    assert len(served.client.get("/v1/windows?limit=3").json()) == 3


def test_retraining_is_approved_when_one_waits(served):
    assert_problem(served.client.post("/v1/runs/approve"), 409)
    served.approved.append(True)
    assert served.client.post("/v1/runs/approve").status_code == 202


def test_signed_files_are_served_with_ranges_and_without_a_key(served):
    (served.folder.tuf_metadata / "timestamp.json").write_bytes(b"{}")
    target = served.folder.tuf_targets / "digits" / "1"
    target.mkdir(parents=True)
    (target / ("a" * 64)).write_bytes(bytes(range(100)))
    client = served.anonymous
    assert client.get("/tuf/metadata/timestamp.json").content == b"{}"
    assert client.get("/tuf/metadata/timestamp.json").headers["cache-control"] == "no-cache"
    place = f"/tuf/targets/digits/1/{'a' * 64}"
    whole = client.get(place)
    assert whole.content == bytes(range(100))
    assert whole.headers["accept-ranges"] == "bytes"
    part = client.get(place, headers={"Range": "bytes=90-"})
    assert (part.status_code, part.content) == (206, bytes(range(90, 100)))
    assert part.headers["content-range"] == "bytes 90-99/100"
    assert client.get(place, headers={"Range": "bytes=10-19"}).content == bytes(range(10, 20))
    assert client.get(place, headers={"Range": "bytes=100-"}).status_code == 416
    changed = client.get(place, headers={"Range": "bytes=90-", "If-Range": '"another"'})
    assert (changed.status_code, len(changed.content)) == (200, 100)
    assert client.head(place).headers["content-length"] == "100"


@pytest.mark.parametrize(
    "path",
    [
        "metadata/../../secret.json",
        "metadata/%2e%2e%2f%2e%2e%2fsecret.json",
        "metadata/..%2fsecret.json",
        "metadata/.hidden.json",
        "metadata/",
        "targets/../secret.json",
        "targets/%2e%2e/%2e%2e/secret.json",
        "targets/digits/..%2f..%2f..%2fsecret.json",
        "targets//secret.json",
        "targets/%2fetc/passwd",
        "targets/link",
        "targets/digits",
        "targets/",
        "targets/a%00b",
        "targets/" + "a/" * 20 + "b",
    ],
)
def test_no_path_leads_out_of_the_published_folders(served, path):
    (served.folder.path / "secret.json").write_text("secret")
    (served.folder.tuf_targets / "link").symlink_to(served.folder.path / "secret.json")
    (served.folder.tuf_targets / "digits").mkdir()
    answer = served.anonymous.get(f"/tuf/{path}")
    assert answer.status_code == 404
    assert "secret" not in answer.text


def test_a_device_fetches_weights_and_leaves_its_update_with_its_token(served):
    came = []
    tokens = served.exchange.open_round("run-1", 3, b"weights", ["a", "b"], came.append)
    headers = {"Authorization": f"Bearer {tokens['a']}"}
    client = served.anonymous
    assert client.get("/v1/training/run-1/3/weights", headers=headers).content == b"weights"
    assert client.put("/v1/training/run-1/3/updates/a", headers=headers, content=b"new").status_code == 204
    assert (served.exchange.update("run-1", 3, "a", hashlib.sha256(b"new").hexdigest()), came) == (b"new", ["a"])
    assert_problem(client.get("/v1/training/run-1/3/weights"), 401)
    assert_problem(client.put("/v1/training/run-1/3/updates/b", headers=headers, content=b"new"), 401)
    assert_problem(client.put("/v1/training/run-1/4/updates/a", headers=headers, content=b"new"), 404)
    assert_problem(client.put("/v1/training/run-1/x/updates/a", headers=headers, content=b"new"), 422)
    assert_problem(client.put("/v1/training/run-1/3/updates/a", headers=headers, content=b"x" * 10**6), 413)
    assert_problem(served.client.get("/v1/training/run-1/3/weights"), 401)
    assert_problem(client.get("/v1/devices", headers=headers), 401)


def test_every_route_is_described(served):
    paths = served.anonymous.get("/openapi.json").json()["paths"]
    assert {"/healthz", "/v1/rollouts", "/v1/training/{run}/{number}/weights", "/tuf/targets/{path}"} <= set(paths)
    assert all(call["description"] for operations in paths.values() for call in operations.values())
