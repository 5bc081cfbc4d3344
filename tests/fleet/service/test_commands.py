import threading

import pytest

from hedgerow.fleet.errors import CommandConflictError, CommandNotBegunError, CommandUnderWayError, UnknownCommandError
from hedgerow.fleet.service.commands import Commands


def nothing(_then, _now):
    return None


def test_a_command_that_nobody_began_is_taken_back_and_never_begins():
    command, is_new = Commands().admit(nothing, "a", "x")
    with pytest.raises(CommandNotBegunError, match="nothing was done and nothing will be"):
        command.answer(0.0)
    assert is_new
    assert not command.future.set_running_or_notify_cancel()
    assert command.state == "failed"


def test_a_command_that_was_begun_is_not_taken_back_and_its_answer_comes():
    commands = Commands()
    command, _ = commands.admit(nothing, "a", "x")
    command.future.set_running_or_notify_cancel()
    with pytest.raises(CommandUnderWayError, match="GET /v1/commands/a"):
        command.answer(0.0)
    assert commands.command("a").state == "running"
    command.future.set_result(7)
    assert (commands.command("a").state, command.answer(0.0)) == ("done", 7)


def test_a_timeout_of_the_work_itself_is_not_taken_for_ours():
    command, _ = Commands().admit(nothing, None, "x")
    command.future.set_running_or_notify_cancel()
    command.future.set_exception(TimeoutError("the disk"))
    with pytest.raises(TimeoutError, match="the disk"):
        command.answer(0.0)


def test_an_id_is_one_command_until_it_was_taken_back():
    commands = Commands()
    first, _ = commands.admit(nothing, "a", "x")
    assert commands.admit(nothing, "a", "x") == (first, False)
    with pytest.raises(CommandConflictError, match="'x' under the id a, found 'y'"):
        commands.admit(nothing, "a", "y")
    with pytest.raises(CommandNotBegunError):
        first.answer(0.0)
    again, is_new = commands.admit(nothing, "a", "x")
    assert is_new
    assert again is not first


def test_only_the_latest_answers_are_kept_and_none_in_progress_is_lost():
    commands = Commands(kept=2)
    slow, _ = commands.admit(nothing, "slow", "x")
    for number in range(5):
        commands.admit(nothing, f"c{number}", "x")[0].future.set_result(number)
    commands.admit(nothing, "last", "x")
    assert commands.command("slow") is slow
    assert [commands.command(f"c{number}").future.result() for number in (3, 4)] == [3, 4]
    for number in range(3):
        with pytest.raises(UnknownCommandError):
            commands.command(f"c{number}")


def test_a_command_is_carried_out_or_taken_back_never_both():
    """Callers give up while the thread begins; each command has exactly one of the two ends."""
    for _ in range(300):
        command, _ = Commands().admit(nothing, None, "x")
        ran = []

        def begin(command=command, ran=ran):
            if command.future.set_running_or_notify_cancel():
                ran.append(True)
                command.future.set_result(None)

        thread = threading.Thread(target=begin)
        thread.start()
        try:
            command.answer(0.0)
            was_told = True
        except CommandNotBegunError:
            was_told = False
        except CommandUnderWayError:
            was_told = True
        thread.join()
        assert bool(ran) == was_told
