from hedgerow.fleet.service.reminders import Reminders


def test_waits_double_up_to_the_longest_and_begin_anew_with_a_new_version():
    reminders = Reminders(1.0, 4.0)
    said = [now for now in range(20) if reminders.due({"a": 1}, float(now))]
    assert said == [1, 3, 7, 11, 15, 19]
    assert reminders.due({"a": 2}, 20.0) == []
    assert reminders.due({"a": 2}, 21.0) == ["a"]


def test_a_device_that_has_acted_is_forgotten():
    reminders = Reminders(1.0, 4.0)
    reminders.due({"a": 1, "b": 1}, 0.0)
    assert reminders.due({"b": 1}, 1.0) == ["b"]
    assert reminders.due({"a": 1}, 1.5) == []
    assert reminders.due({"a": 1}, 2.5) == ["a"]
