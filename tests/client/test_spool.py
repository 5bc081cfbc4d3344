"""The spool keeps windows in order, bounded, through restarts."""

from hedgerow.client.health import Health
from hedgerow.client.spool import Spool
from hedgerow.durable import write_durably


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


def test_a_file_that_cannot_be_read_is_said_once_and_passed_over(tmp_path, caplog):
    spool = Spool(tmp_path)
    spool.put(b"0")
    spool.put(b"1")
    first = next(tmp_path.glob("*0.json"))
    first.unlink()
    first.mkdir()
    assert waiting(spool) == [b"1"]
    assert waiting(spool) == [b"1"]
    assert sum("cannot be read" in record.getMessage() for record in caplog.records) == 1


def test_a_file_that_cannot_be_removed_is_not_sent_twice_and_costs_no_new_window(tmp_path):
    spool = Spool(tmp_path, limit_messages=2)
    spool.put(b"0")
    spool.put(b"1")
    for path in tmp_path.glob("*.json"):
        path.unlink()
        path.mkdir()
        (path / "stuck").touch()
    spool.remove(0)
    spool.put(b"2")
    spool.put(b"3")
    assert waiting(spool) == [b"2", b"3"]


def test_what_the_disk_does_not_take_waits_in_memory_and_is_written_when_it_does(tmp_path, monkeypatch, caplog):
    now = [0.0]
    caplog.set_level("INFO")
    spool = Spool(tmp_path, limit_messages=3, health=Health(timer=lambda: now[0]))
    spool.put(b"0")

    def full(_path, _content):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("hedgerow.client.spool.write_durably", full)
        spool.put(b"1")
        spool.put(b"2")
        spool.put(b"3")
        assert waiting(spool) == [b"1", b"2", b"3"]
        assert waiting(Spool(tmp_path)) == []
        spool.remove(1)
    now[0] = 10.0
    spool.put(b"4")
    assert waiting(spool) == waiting(Spool(tmp_path)) == [b"2", b"3", b"4"]
    assert [record.getMessage() for record in caplog.records] == [
        "a window could not be written: OSError: [Errno 28] No space left on device",
        "windows are written again; 3 were not written at once in 0 s",
    ]


def test_a_folder_that_cannot_be_made_keeps_windows_in_memory(tmp_path):
    (tmp_path / "file").write_text("mine")
    spool = Spool(tmp_path / "file" / "spool")
    spool.put(b"0")
    assert waiting(spool) == [b"0"]


def test_a_damaged_window_is_left_out_and_one_without_a_hash_is_taken(tmp_path):
    spool = Spool(tmp_path)
    for number in range(3):
        spool.put(b'{"samples":%d}' % number)
    path = tmp_path / "000000000001.json"
    path.write_bytes(path.read_bytes().replace(b":1", b":3"))
    (tmp_path / "000000000002.json").write_bytes(b'{"samples":2}')
    again = Spool(tmp_path)
    assert waiting(again) == [b'{"samples":0}', b'{"samples":2}']
    assert not path.exists()
    assert len(again) == 2


def test_what_a_full_disk_left_behind_is_written_a_few_at_a_time(tmp_path, monkeypatch):
    spool, is_full, written = Spool(tmp_path), [True], []

    def write(path, content):
        if is_full:
            raise OSError(28, "No space left on device")
        written.append(path.name)
        write_durably(path, content)

    monkeypatch.setattr("hedgerow.client.spool.write_durably", write)
    for number in range(30):
        spool.put(b"%d" % number)
    is_full.clear()
    spool.put(b"30")
    assert len(written) == 8, "serving waits for it"
    for number in range(31, 36):
        spool.put(b"%d" % number)
    assert [message for _, message in Spool(tmp_path).pending()] == [b"%d" % number for number in range(36)]
