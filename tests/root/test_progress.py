"""Progress is told to whoever asked, and to nobody by default."""

from hedgerow.progress import Progress, silent


def test_silence_takes_any_progress(capsys):
    silent(Progress("compile raspberry-pi-4", 1, 4, "accuracy 0.96"))

    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
