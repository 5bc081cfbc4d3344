"""A record with a checksum and a spare copy: one of the two is whole at any moment."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.client.kept_record import KeptRecord
from hedgerow.durable import write_durably
from hedgerow.errors import DecodeError


def number(fields) -> int:
    found = fields.integer("number")
    fields.finish()
    return found


class Card:
    """A memory card that takes some more writes and no other; each one leaves the file old or new."""

    def __init__(self, writes: int = 1000) -> None:
        self.writes = writes

    def write(self, path: Path, content: bytes) -> None:
        if self.writes == 0:
            raise OSError(28, "No space left on device")
        self.writes -= 1
        write_durably(path, content)


def record(folder: Path, card: Card | None = None) -> KeptRecord:
    return KeptRecord(folder / "r.json", "thing", (card or Card()).write)


def filled(folder: Path, *numbers: int) -> None:
    kept = record(folder)
    for value in numbers:
        kept.write({"number": value})


def test_what_was_never_written_is_none(tmp_path):
    kept = record(tmp_path)
    assert kept.read(number) is None
    assert not kept.needs_repair


def test_both_copies_hold_what_was_written_last(tmp_path):
    filled(tmp_path, 1, 2, 3)
    kept = record(tmp_path)
    assert (kept.read(number), kept.needs_repair) == (3, False)
    assert (tmp_path / "r.json").read_bytes() == (tmp_path / "r.spare.json").read_bytes()


@pytest.mark.parametrize("name", ["r.json", "r.spare.json"])
@given(data=st.data())
def test_any_flipped_bit_in_one_copy_is_found_and_the_other_counts(tmp_path_factory, name, data):
    folder = tmp_path_factory.mktemp("record")
    filled(folder, 1, 2)
    content = bytearray((folder / name).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (folder / name).write_bytes(bytes(content))
    kept = record(folder)
    assert (kept.read(number), kept.needs_repair) == (2, True)
    kept.write({"number": 2})
    assert (folder / "r.json").read_bytes() == (folder / "r.spare.json").read_bytes()
    assert record(folder).read(number) == 2


def test_two_damaged_copies_are_said_to_be_none(tmp_path):
    filled(tmp_path, 1)
    for name in ("r.json", "r.spare.json"):
        (tmp_path / name).write_bytes(b"rust")
    kept = record(tmp_path)
    with pytest.raises(DecodeError):
        kept.read(number)
    assert kept.needs_repair


def test_a_card_that_takes_the_first_copy_only_has_taken_the_record(tmp_path):
    filled(tmp_path, 1)
    kept = record(tmp_path, Card(1))
    assert kept.read(number) == 1
    kept.write({"number": 2})
    assert kept.needs_repair
    again = record(tmp_path)
    assert (again.read(number), again.needs_repair) == (2, True)


def test_a_card_that_takes_nothing_leaves_the_old_record(tmp_path):
    filled(tmp_path, 1)
    with pytest.raises(OSError, match="No space"):
        record(tmp_path, Card(0)).write({"number": 2})
    assert record(tmp_path).read(number) == 1


def test_the_newer_copy_counts_whichever_it_is(tmp_path):
    filled(tmp_path, 1)
    old = (tmp_path / "r.json").read_bytes()
    filled(tmp_path / "other", 1, 2)
    newer = (tmp_path / "other" / "r.json").read_bytes()
    for first, second in ((old, newer), (newer, old)):
        (tmp_path / "r.json").write_bytes(first)
        (tmp_path / "r.spare.json").write_bytes(second)
        kept = record(tmp_path)
        assert (kept.read(number), kept.needs_repair) == (2, True)


def test_a_copy_that_cannot_be_read_is_a_damaged_one(tmp_path):
    filled(tmp_path, 1)
    (tmp_path / "r.json").unlink()
    (tmp_path / "r.json").mkdir()
    assert record(tmp_path).read(number) == 1


def test_a_record_without_a_checksum_is_read_and_worth_writing(tmp_path):
    (tmp_path / "r.json").write_text(json.dumps({"version": 1, "thing": {"number": 7}}))
    kept = record(tmp_path)
    assert (kept.read(number), kept.needs_repair) == (7, True)


def test_a_record_of_a_newer_agent_is_not_guessed_at(tmp_path):
    (tmp_path / "r.json").write_text(json.dumps({"version": 3, "thing": {"number": 7}}))
    with pytest.raises(DecodeError, match="version"):
        record(tmp_path).read(number)
