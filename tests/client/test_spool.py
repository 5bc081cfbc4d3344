"""The spool keeps windows in order, bounded, through restarts."""

from hedgerow.client.spool import Spool


def waiting(spool: Spool) -> list[bytes]:
    return [message for _, message in spool.pending()]


def test_messages_stay_until_they_are_removed_also_through_restarts(tmp_path):
    spool = Spool(tmp_path)
    for number in range(12):
        spool.put(b"%d" % number)
    again = Spool(tmp_path)
    assert waiting(again) == [b"%d" % number for number in range(12)]
    for number, message in again.pending():
        if message != b"11":
            again.remove(number)
    again.put(b"12")
    assert waiting(Spool(tmp_path)) == [b"11", b"12"]


def test_the_oldest_are_dropped(tmp_path):
    spool = Spool(tmp_path, limit_messages=3)
    for number in range(5):
        spool.put(b"%d" % number)
    assert waiting(spool) == [b"2", b"3", b"4"]
    assert (len(spool), spool.dropped) == (3, 2)


def test_what_a_power_cut_left_is_no_message(tmp_path):
    (tmp_path / ".000000000000.json.abc.part").write_bytes(b"hal")
    assert waiting(Spool(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_vanished_is_passed_over(tmp_path):
    spool = Spool(tmp_path)
    spool.put(b"0")
    spool.put(b"1")
    next(tmp_path.glob("*0.json")).unlink()
    assert waiting(spool) == [b"1"]


def test_a_disk_that_takes_no_more_costs_no_window_and_is_said_once(tmp_path, monkeypatch, caplog):
    def full(_path, _content):
        raise OSError(28, "No space left on device")

    spool = Spool(tmp_path, limit_messages=4)
    spool.put(b"0")
    monkeypatch.setattr("hedgerow.client.spool.write_durably", full)
    for number in range(1, 6):
        spool.put(b"%d" % number)
    assert waiting(spool) == [b"2", b"3", b"4", b"5"]
    for number, _message in spool.pending():
        spool.remove(number)
    assert (waiting(spool), spool.dropped) == ([], 2)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert waiting(Spool(tmp_path)) == []


def test_a_folder_that_cannot_be_made_keeps_windows_in_memory(tmp_path):
    (tmp_path / "file").write_text("mine")
    spool = Spool(tmp_path / "file" / "spool")
    spool.put(b"0")
    assert waiting(spool) == [b"0"]


def test_a_file_that_cannot_be_removed_is_not_sent_twice(tmp_path, monkeypatch):
    spool = Spool(tmp_path)
    spool.put(b"0")

    def refuse(_path, missing_ok=False):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    for number, _message in spool.pending():
        spool.remove(number)
    assert waiting(spool) == []
