import os
import signal

from tools.operator_tables import running
from tools.operator_tables.running import run_apart


def test_each_file_has_its_outcome_and_one_that_ends_its_process_costs_no_other(tmp_path):
    def run(place: int) -> None:
        (tmp_path / str(place)).write_text("was here")
        if place == 1:
            raise ValueError("not  this\none")
        if place == 3:
            os.kill(os.getpid(), signal.SIGSEGV)
        if place == 4:
            os._exit(7)

    assert run_apart(run, 6) == [
        "", "ValueError: not this one", "", "ends its process by SIGSEGV", "ends its process with 7", "",
    ]  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == list("012345")


def test_one_that_dies_of_an_earlier_one_is_run_again_alone():
    seen = []

    def run(place: int) -> None:
        seen.append(place)
        if place == 1 and seen == [0, 1]:
            os.kill(os.getpid(), signal.SIGABRT)

    assert run_apart(run, 3) == ["", "", ""]


def test_one_that_hangs_is_ended_and_told(monkeypatch):
    monkeypatch.setattr(running, "_TIMEOUT_S", 0.5)

    def run(place: int) -> None:
        if place == 1:
            signal.pause()

    assert run_apart(run, 3) == ["", "hangs for 0.5 s", ""]


def test_nothing_to_run_starts_nothing():
    assert run_apart(lambda _place: None, 0) == []
