"""Tests of hedgerow.children.output."""

import os

from hedgerow.children.output import OutputFile, OutputTail, last_lines


def test_the_last_lines_of_a_long_log_are_read_without_the_rest(tmp_path):
    (tmp_path / "log").write_bytes(b"x" * 10**6 + b"\xff\n\n a \nb\n\n")

    assert last_lines(tmp_path / "log", lines=2) == ("a", "b")
    assert last_lines(tmp_path / "absent") == ()


def test_a_file_keeps_everything_and_is_appended_to(tmp_path):
    for text in (b"one\n", b"two\n\nthree\n\xff four \n"):
        with OutputFile(tmp_path / "new" / "log") as output:
            os.write(output.descriptor, text)
            found = output.last_lines()
    assert found == ("two", "three", "\N{REPLACEMENT CHARACTER} four")
    assert (tmp_path / "new" / "log").read_bytes() == b"one\ntwo\n\nthree\n\xff four \n"


def test_a_file_without_a_name_is_gone_with_it():
    output = OutputFile()
    os.write(output.descriptor, b"said\n")
    assert output.last_lines() == ("said",)
    assert os.fstat(output.descriptor).st_nlink == 0
    output.close()


def test_a_tail_keeps_the_end_and_knows_when_nothing_more_comes():
    with OutputTail() as output:
        assert output.drain()
        writing = os.dup(output.descriptor)
        output.handed_over()
        os.write(writing, b"a" * 5000 + b"\nlast\n")
        assert output.drain()
        assert output.last_lines() == ("a" * 4090, "last")
        os.close(writing)
        assert not output.drain()


def test_closing_a_tail_twice_closes_nobody_elses_descriptor():
    output = OutputTail()
    output.close()
    reading, writing = os.pipe()
    output.close()
    os.write(writing, b"x")
    assert os.read(reading, 1) == b"x"
    os.close(reading)
    os.close(writing)
