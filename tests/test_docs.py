"""The documents say what the code does: commands, targets, messages, links."""

import json
import re
from pathlib import Path

import pytest

from hedgerow.wire import (
    Channel,
    Desired,
    Execution,
    Presence,
    Reported,
    Telemetry,
    TrainTask,
    TrainUpdate,
    device_topic,
)
from tests.test_layout import ROOT, commands

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
TEXT = "\n".join(page.read_text() for page in PAGES)
WIRE = (ROOT / "docs" / "wire.md").read_text()
MESSAGES = {kind.KIND: kind for kind in (Desired, Reported, Presence, Execution, Telemetry, TrainTask, TrainUpdate)}


@pytest.mark.parametrize("name", [name for name, _plugin in commands()])
def test_every_command_is_shown(name):
    assert f"hedgerow {name}" in TEXT


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "hardware" / "targets").glob("*.toml")))
def test_every_target_is_named(name):
    assert name in TEXT


def section(heading: str) -> str:
    found = re.search(rf"^### `{heading}`.*?\n(.*?)(?=^##|\Z)", WIRE, re.MULTILINE | re.DOTALL)
    assert found, f"docs/wire.md has no section ### `{heading}`"
    return found.group(1)


@pytest.mark.parametrize("channel", list(Channel))
def test_the_wire_document_shows_a_whole_message_of_every_channel(channel):
    (example,) = re.findall(r"```json\n(.*?)```", section(channel), re.DOTALL)
    kind = MESSAGES[channel]

    message = kind.decode(example.encode())

    assert json.loads(message.encode()) == json.loads(example)


@pytest.mark.parametrize("channel", list(Channel))
def test_the_wire_document_names_every_topic(channel):
    assert device_topic("FLEET", "DEVICE", channel).replace("FLEET", "<fleet>").replace("DEVICE", "<device>") in WIRE


def anchors(page: Path) -> set[str]:
    """Return what the headings of a page are linked by."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file_and_a_heading(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    links = [target.partition("#")[::2] for target in targets if not re.match(r"[a-z]+:", target)]

    assert [file for file, _heading in links if not (page.parent / file).exists()] == []
    headed = [(page.parent / file if file else page, heading) for file, heading in links if heading]
    assert [(str(file), heading) for file, heading in headed if heading not in anchors(file)] == []


def test_every_decision_is_in_the_index():
    folder = ROOT / "docs" / "adr"
    index = (folder / "index.md").read_text()

    assert [path.name for path in sorted(folder.glob("0*.md")) if f"({path.name})" not in index] == []


def test_every_release_in_the_changelog_is_known_and_the_first_is_the_newest():
    from hedgerow import __version__

    versions = re.findall(r"^## \[?([0-9.]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == __version__


def test_scripts_are_executable():
    scripts = [*(ROOT / "scripts").iterdir(), ROOT / ".ci" / "run"]

    assert [path.name for path in scripts if not Path(path).stat().st_mode & 0o111] == []
