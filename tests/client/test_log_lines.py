"""Log lines stay one line each, whatever is in them."""

import logging

from hedgerow.client.log_lines import LogLines


def test_a_record_is_one_line_with_time_level_place_and_device():
    record = logging.LogRecord("hedgerow.client.agent", logging.INFO, "f", 1, "two\nlines of %s", ("text\r\n",), None)
    record.created, record.msecs = 0.0, 7.0
    line = LogLines("kitchen").format(record)
    assert line == "1970-01-01T00:00:00.007Z INFO client.agent device=kitchen two | lines of text | "


def test_a_traceback_is_on_the_same_line():
    error = ValueError("why")
    record = logging.LogRecord("x", logging.ERROR, "f", 1, "failed", (), (ValueError, error, None))
    line = LogLines("d").format(record)
    assert "ValueError: why" in line
    assert "\n" not in line
