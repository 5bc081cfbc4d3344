from hedgerow.fleet.demo.measure import SeenWindow, accuracy_of, false_alarms, full_windows
from hedgerow.window import Window
from tests.scores import scored


def window(release="digits@1", samples=10, correct=9, index=0):
    return Window(
        release=release,
        index=index,
        started_at=1.0,
        ended_at=2.0,
        samples=samples,
        features={},
        scores=scored(correct, samples),
    )


def seen(device, phase, **facts):
    return SeenWindow(device, window(**facts), phase)


def test_only_full_windows_of_the_release_the_phase_and_the_device_count():
    entries = [
        seen("a", "clean", correct=1),
        seen("a", "drifted", correct=2),
        seen("a", "clean", samples=4, correct=3),
        seen("a", "clean", release="digits@2", correct=4),
        seen("b", "clean", correct=5),
        seen("c", "clean", correct=6),
    ]

    found = full_windows(entries, release="digits@1", phase="clean", devices=["a", "b"], samples=10, each=2)

    assert {name: [w.scores.total for w in windows] for name, windows in found.items()} == {"a": [1], "b": [5]}


def test_no_more_windows_than_asked_are_taken_of_a_device():
    entries = [seen("a", "clean", correct=number) for number in range(5)]

    found = full_windows(entries, release="digits@1", phase="clean", devices=["a"], samples=10, each=2)

    assert [w.scores.total for w in found["a"]] == [0, 1]


def test_accuracy_is_over_all_labelled_samples():
    assert accuracy_of({"a": [window(correct=10)], "b": [window(samples=30, correct=20)]}) == 30 / 40


def test_there_is_no_accuracy_while_a_device_has_sent_nothing():
    assert accuracy_of({"a": [window()], "b": []}) is None
    assert accuracy_of({}) is None


def test_an_alarm_is_false_outside_the_drifted_phase_or_about_another_device():
    alarms = [("clean", "a"), ("drifted", "a"), ("drifted", "b"), ("recovered", "a")]

    assert false_alarms(alarms, drifted=["a"]) == 3
    assert false_alarms([("drifted", "a")], drifted=["a"]) == 0
