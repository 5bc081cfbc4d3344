from hedgerow.fleet.trust.expiry import ExpiryWatch, expiry_alarms

DAY_S = 86400.0
NOW = 1_800_000_000.0


def ends(**days):
    return {role: NOW + days.get(role, 300) * DAY_S for role in ("root", "targets", "snapshot", "timestamp")}


def roles(expiries):
    return [(alarm.role, alarm.is_over) for alarm in expiry_alarms(expiries, NOW)]


def test_the_end_of_offline_signatures_is_an_alarm_a_month_before_and_of_online_ones_six_hours():
    assert roles(ends()) == []
    assert roles(ends(root=30, targets=30, snapshot=0.25, timestamp=0.25)) == []
    assert roles(ends(root=29.9)) == [("root", False)]
    assert roles(ends(root=20, targets=10, snapshot=0.2, timestamp=0.1)) == [
        ("timestamp", False),
        ("snapshot", False),
        ("targets", False),
        ("root", False),
    ]
    assert roles(ends(targets=0, root=-1)) == [("root", True), ("targets", True)]


def test_an_alarm_says_what_to_do():
    (soon,) = expiry_alarms(ends(root=1), NOW)
    assert soon.sentence == (
        "the signature of root ends at 2027-01-16T08:00+00:00; bring the offline keys and run `hedgerow fleet renew`"
    )
    (over,) = expiry_alarms(ends(timestamp=-1), NOW)
    assert (
        "ended at 2027-01-14T08:00+00:00, and devices accept nothing new; keep `hedgerow fleet serve`" in over.sentence
    )
    assert over.to_record()["is_over"]


def test_an_alarm_is_said_once_a_day_and_at_once_when_it_is_over():
    watch = ExpiryWatch()
    expiries = ends(root=2.5)
    said = [len(watch.due(expiries, NOW + hours * 3600)) for hours in range(72)]
    assert [hour for hour, count in enumerate(said) if count] == [0, 24, 48, 60]
    assert sum(said) == 4
