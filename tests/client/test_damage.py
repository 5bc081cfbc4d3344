"""One flipped bit in any file of a state folder, offline: a verified release is served, and no good slot is lost."""

import contextlib
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hedgerow.client.agent import Agent
from hedgerow.client.presence import presence_will
from hedgerow.client.runtimes.linear import load_linear
from hedgerow.client.settings import AgentSettings
from hedgerow.client.slot_folders import SlotFolders
from hedgerow.client.source import Sample
from hedgerow.client.trial import DirectTrials
from hedgerow.link import Message
from hedgerow.memory_link import MemoryBroker
from hedgerow.wire.device import Desired
from hedgerow.wire.topics import Channel, device_topic
from tests.client.conftest import linear_weights, softmax

WEIGHTS = {f"demo@{number}": linear_weights(number) for number in (1, 2)}
ONES = np.ones((1, 4), np.float32)


class EnoughError(Exception):
    """The agent has started; that is all there is to see."""


def settings(folder: Path, root: Path, url: str = "http://127.0.0.1:9") -> AgentSettings:
    return AgentSettings(
        device="d1",
        fleet="f",
        target="bench",
        broker_host="localhost",
        broker_port=1883,
        server=url,
        trusted_root=root,
        state_folder=folder,
        window_samples=10,
        healthy_after_s=0.01,
    )


def lonely(folder: Path, root: Path) -> Agent:
    """An agent that reaches nobody."""
    own = settings(folder, root)
    broker = MemoryBroker()
    link = broker.connect("d1", will=presence_will(own, "boot"))
    broker.break_link("d1")
    return Agent(own, link, runtimes=load_linear, trials=DirectTrials(load_linear))


def start(folder: Path, root: Path) -> tuple[str | None, np.ndarray | None]:
    """Start an agent offline; return what serves, and what it answers."""
    agent, found = lonely(folder, root), []

    def look() -> None:
        outputs = agent.active.predict({"x": ONES})
        found.append((agent.active.release, None if outputs is None else outputs["probabilities"]))
        raise EnoughError

    with contextlib.suppress(EnoughError):
        agent.run(check=look)
    return found[0]


def check_serves(folder: Path, root: Path) -> str:
    release, answer = start(folder, root)
    assert release in WEIGHTS
    wanted = softmax(ONES @ WEIGHTS[release]["weight"] + WEIGHTS[release]["bias"])
    np.testing.assert_allclose(answer, wanted, rtol=1e-5)
    return release


@pytest.fixture
def lived(tmp_path, repository, fleet, release) -> Path:
    """The state folder of an agent that has installed two releases, served, learned and been cut off."""
    folder = tmp_path / "lived"
    broker = MemoryBroker()
    own = settings(folder, repository.trusted_root, fleet.url)
    link = broker.connect("d1", will=presence_will(own, "boot"))
    repository.add(release(1))
    repository.add(release(2))
    wanted = iter([Desired(version=1, release="demo@1", rollout="r1"), Desired(version=2, release="demo@2")])

    def source(_context) -> Iterator[Sample]:
        for number in range(40):
            yield Sample({"x": np.full(4, number, np.float32)}, number % 3, "learn")
        while True:
            yield Sample({"x": np.zeros(4, np.float32)}, 0)

    agent = Agent(own, link, source, runtimes=load_linear, trials=DirectTrials(load_linear))
    turns = iter(range(2000))

    def look() -> None:
        state = agent._state
        if state.is_settled and state.installing is None:
            desired = next(wanted, None)
            if desired is None:
                if not state.is_connected and len(list((folder / "spool").glob("*.json"))) > 2:
                    raise EnoughError
                broker.break_link("d1")
                return
            link.put(Message(device_topic("f", "d1", Channel.DESIRED), desired.encode()))
        assert next(turns) < 1999, "the releases were not installed"

    with contextlib.suppress(EnoughError):
        agent.run(check=look)
    for path in sorted((folder / "spool").glob("*.json"))[3:]:
        path.unlink()
    state = SlotFolders(folder, "bench").state
    assert (state.release, state.previous) == ("demo@2", "demo@1")
    return folder


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def flipped(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    position = rng.randrange(len(damaged))
    damaged[position] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def check_damaged(lived: Path, root: Path, name: str, damaged: bytes, copy: Path) -> None:
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(lived, copy)
    (copy / name).write_bytes(damaged)
    served = check_serves(copy, root)
    state = SlotFolders(copy, "bench").state
    if name.startswith("slots/B"):
        assert served == "demo@1", name
    else:
        assert served == "demo@2", name
    whole = {"slots/A": ["demo@2"], "slots/B": ["demo@1"]}.get(name[:7], ["demo@1", "demo@2"])
    # A slot that does not run is looked at when it is needed.
    assert [release for release in whole if state.holds(release) is None] == [], name
    assert check_serves(copy, root) == served, "and again"
    for kept in ("pointer", "agent"):
        main, spare = (copy / f"{kept}.json").read_bytes(), (copy / f"{kept}.spare.json").read_bytes()
        assert name != f"{kept}.json" or main == spare, "what was damaged is put right"
        assert name != f"{kept}.spare.json" or main == spare, "what was damaged is put right"
        assert json.loads(main)["version"] == 2


def all_kinds(names: list[str]) -> None:
    wanted = {"pointer.json", "pointer.spare.json", "agent.json", "agent.spare.json", "buffer/samples.bin"}
    assert wanted <= set(names)
    for folder in ("slots/A/blobs", "slots/B/blobs", "tuf", "spool"):
        assert any(name.startswith(f"{folder}/") for name in names), folder


@pytest.mark.parametrize(
    ("part", "flips"),
    [("pointer", 4), ("agent", 3), pytest.param("", 8, marks=pytest.mark.heavy)],
    ids=["pointer", "agent", "every file"],
)
def test_one_flipped_bit_costs_no_good_slot(lived, repository, tmp_path, part, flips):
    rng = random.Random(f"{part} {flips}")
    all_kinds(files(lived))
    for name in files(lived):
        content = (lived / name).read_bytes()
        if not content or not name.startswith(part):
            continue
        for _ in range(flips):
            check_damaged(lived, repository.trusted_root, name, flipped(content, rng), tmp_path / "copy")


@pytest.mark.heavy
@pytest.mark.parametrize("damage", [b"", b"\x00" * 512, b"\xff" * 100_000, b"{}", b"[" * 5000])
def test_a_file_that_is_emptied_or_full_of_something_else_costs_no_good_slot(lived, repository, tmp_path, damage):
    for name in files(lived):
        if name != "agent.lock":
            check_damaged(lived, repository.trusted_root, name, damage, tmp_path / "copy")


@pytest.mark.parametrize("name", ["pointer", "agent"])
def test_a_file_that_is_gone_costs_no_good_slot(lived, repository, tmp_path, name):
    for lost in (f"{name}.json", f"{name}.spare.json"):
        copy = tmp_path / lost
        shutil.copytree(lived, copy)
        (copy / lost).unlink()
        assert check_serves(copy, repository.trusted_root) == "demo@2"
        assert SlotFolders(copy, "bench").state.previous == "demo@1"
        assert (copy / f"{name}.json").read_bytes() == (copy / f"{name}.spare.json").read_bytes()


def test_both_copies_of_both_records_damaged_still_serve_a_release(lived, repository):
    for name in ("pointer.json", "pointer.spare.json", "agent.json", "agent.spare.json"):
        (lived / name).write_bytes(b"rust")
    assert check_serves(lived, repository.trusted_root) == "demo@2"
    state = SlotFolders(lived, "bench").state
    assert (state.release, state.holds("demo@1") is not None) == ("demo@2", True)
