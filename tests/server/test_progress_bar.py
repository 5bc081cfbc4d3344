"""Tests of hedgerow.server.progress_bar."""

from hedgerow.progress import Progress
from hedgerow.server.progress_bar import progress_bar


def test_a_bar_for_each_work_is_drawn_on_stderr(capsys):
    with progress_bar(quiet=False) as show:
        show(Progress("train", 1, 2, "accuracy 0.5"))
        show(Progress("sweep", 3, 3))
    captured = capsys.readouterr()

    assert captured.out == ""
    assert "train" in captured.err
    assert "3/3" in captured.err


def test_quiet_draws_nothing(capsys):
    with progress_bar(quiet=True) as show:
        show(Progress("train", 1, 2))
    assert capsys.readouterr() == ("", "")
