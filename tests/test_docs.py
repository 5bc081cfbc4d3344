"""The documents say what the code does: commands, targets, messages, links."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from hedgerow import Task
from hedgerow.client import SourceContext
from hedgerow.client.cli import run
from hedgerow.client.runtimes import RUNTIMES as AGENT_RUNTIMES
from hedgerow.client.source import load_source
from hedgerow.hardware.target import RUNTIMES as TARGET_RUNTIMES
from hedgerow.outputs.losses import LOSSES
from hedgerow.outputs.records import KINDS
from hedgerow.server.cli import train
from hedgerow.server.simulation.cli import simulate
from hedgerow.wire.device import Desired, Presence, Reported
from hedgerow.wire.execution import Execution
from hedgerow.wire.telemetry import Telemetry
from hedgerow.wire.topics import Channel, device_topic
from hedgerow.wire.training import TrainTask, TrainUpdate
from tests.test_layout import FOLDERS, ROOT, commands

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


def test_the_source_in_the_document_yields_what_is_in_its_folder(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "agent.md").read_text(), re.DOTALL)
    (tmp_path / "inbox_source.py").write_text(code)
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    np.save(inbox / "7-0001.npy", np.zeros((1, 8, 8), np.float32))
    np.save(inbox / "8.npy", np.ones((1, 8, 8), np.float32))

    samples = load_source(f"{tmp_path / 'inbox_source.py'}:stream")(
        SourceContext("pi-0", tmp_path, {"inbox": str(inbox)})
    )

    found = [next(samples) for _ in range(3)]
    assert [(sample.label, sample.use) for sample in found] == [(7, "learn"), (7, "serve"), (None, "serve")]
    assert [float(sample.inputs["image"].mean()) for sample in found] == [0, 0, 1]
    assert list(inbox.iterdir()) == []


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("task.md", [field.name for field in dataclasses.fields(Task)]),
        ("agent.md", [option.opts[0] for option in run.params]),
        ("simulation.md", [option.opts[0] for option in simulate.params]),
    ],
)
def test_a_document_names_every_field_and_option(page, names):
    text = (ROOT / "docs" / page).read_text()

    assert [name for name in names if f"`{name}`" not in text] == []


def test_the_page_of_tasks_names_every_kind_of_output_with_its_losses_and_every_loss():
    text = (ROOT / "docs" / "task.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| `")]
    fits = {row[0].strip("`"): row[2] for row in rows if row[0].strip("`") in LOSSES}

    assert [kind.__name__ for kind in KINDS.values() if f"| `{kind.__name__}(" not in text] == []
    assert set(fits) == set(LOSSES)
    for loss, said in fits.items():
        fitting = {kind.__name__ for kind in KINDS.values() if loss in kind.losses}
        named = {kind.__name__ for kind in KINDS.values() if f"`{kind.__name__}`" in said}
        expected = {kind.__name__ for kind in KINDS.values()} - named if said.startswith("all but") else named
        assert expected == fitting, loss


NOW = [page for page in PAGES if page.parent.name != "adr"]
"""Decisions also name layouts that were not chosen."""


@pytest.mark.parametrize("page", NOW, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_page_names_is_there(page):
    folders = "|".join(("src", *FOLDERS, "docs", "scripts", "tests", "tools"))
    named = re.findall(rf"`((?:{folders})/[A-Za-z0-9_./-]*)(?::[a-z]+)?`", page.read_text())

    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_page_is_linked_from_the_index_with_its_own_title():
    pages = {page for page in (ROOT / "docs").glob("*.md") if page.name != "index.md"}
    index = (ROOT / "docs" / "index.md").read_text()
    linked = dict(re.findall(r"^\| \[(.+?)\]\((.+?)\) \|", index, re.MULTILINE))

    titles = {page.read_text().splitlines()[0].removeprefix("# "): page.name for page in pages}
    assert titles.items() <= linked.items()
    assert "docs/index.md" in (ROOT / "README.md").read_text()


def test_the_page_of_what_is_ones_own_has_a_row_for_every_group_of_entry_points():
    sources = [path.read_text() for folder in ("src", *FOLDERS) for path in (ROOT / folder).rglob("*.py")]
    groups = {group for text in sources for group in re.findall(r'^[A-Z]+_GROUP = "(.+)"$', text, re.MULTILINE)}
    page = (ROOT / "docs" / "extending.md").read_text()

    assert len(groups) == 6
    assert set(re.findall(r"^\| `(hedgerow\..+?)` \|", page, re.MULTILINE)) == groups


def test_the_page_names_the_runtimes_that_are_left_to_others():
    left = sorted(set(TARGET_RUNTIMES) - set(AGENT_RUNTIMES))
    page = " ".join((ROOT / "docs" / "extending.md").read_text().split())

    assert f"so {' and '.join(f'`{name}`' for name in left)} are the names that a runtime of yours can have" in page


def test_the_options_of_simulate_are_told_in_whole_phrases_and_name_privacy_as_train_does():
    helps = {option.name: option.help for option in simulate.params if option.help}
    assert [name for name, said in helps.items() if said.startswith("Of ")] == []
    said = "averaging ones with differential privacy if wanted, such as fedavg+server-fixed:clip=1,noise=1; or your own"
    assert said in helps["strategy"]
    assert said in next(option.help for option in train.params if option.name == "strategy")


def test_every_decision_is_in_the_index_once_and_in_order():
    folder = ROOT / "docs" / "adr"
    listed = re.findall(r"^\| \d{4} \| \[.*\]\((.*)\) \|$", (folder / "index.md").read_text(), re.MULTILINE)

    assert listed == [path.name for path in sorted(folder.glob("0*.md")) if "template" not in path.name]


def test_every_release_in_the_changelog_is_known_and_the_first_is_the_newest():
    from hedgerow import __version__

    versions = re.findall(r"^## \[?([0-9.]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == __version__


def test_scripts_are_executable():
    scripts = [*(ROOT / "scripts").iterdir(), ROOT / ".ci" / "run"]

    assert [path.name for path in scripts if not Path(path).stat().st_mode & 0o111] == []
