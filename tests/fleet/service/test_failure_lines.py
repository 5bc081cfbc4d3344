"""Failures of an outermost loop: few lines, however many."""

import logging

from hedgerow.fleet.service.failure_lines import FailureLines


def test_thousands_of_failures_are_a_few_lines_and_their_end_is_one(caplog):
    caplog.set_level("INFO")
    lines = FailureLines(logging.getLogger("thread"), "a turn")
    lines.worked()
    for _ in range(2500):
        lines.failed(OSError(28, "No space left on device"))
    lines.worked()
    lines.worked()
    lines.failed(ValueError("another"))
    assert [record.getMessage() for record in caplog.records] == [
        "a turn failed (1 since the last that did not)",
        "a turn failed (1001 since the last that did not)",
        "a turn failed (2001 since the last that did not)",
        "a turn works again; 2500 failed",
        "a turn failed (1 since the last that did not)",
    ]
    assert all(record.exc_info for record in caplog.records if record.levelno == logging.ERROR)
