import itertools

from hedgerow.fleet.retrain.policy import (
    AskApproval,
    DriftRaised,
    GiveUp,
    ReleaseJudged,
    RetrainApproved,
    RetrainEnded,
    RetrainPolicy,
    RetrainState,
    StartRetrain,
    TimePassed,
)


def play(policy, *events):
    state, actions = RetrainState(), []
    for event in events:
        state, action = policy.decide(state, event)
        actions.append(action)
    return state, actions


def test_an_alert_starts_a_retraining_once():
    state, actions = play(RetrainPolicy(), DriftRaised("d1", "toy@1", 0), DriftRaised("d1", "toy@1", 1))
    assert actions == [StartRetrain("d1", "toy@1"), None]
    assert state.running == StartRetrain("d1", "toy@1")


def test_alerts_can_be_left_to_people():
    assert play(RetrainPolicy(on_alert=False), DriftRaised("d1", "toy@1", 0))[1] == [None]


def test_an_alert_within_the_cool_down_waits_for_its_end():
    policy = RetrainPolicy(cool_down_s=100)
    events = [
        DriftRaised("d1", "toy@1", 0),
        RetrainEnded(True, 10),
        DriftRaised("d2", "toy@2", 20),
        TimePassed(109),
        TimePassed(110),
        TimePassed(111),
    ]
    assert play(policy, *events)[1][2:] == [None, None, StartRetrain("d2", "toy@2"), None]


def test_a_failed_retraining_is_tried_again_after_the_cool_down():
    policy = RetrainPolicy(cool_down_s=100)
    events = [DriftRaised("d1", "toy@1", 0), RetrainEnded(False, 10), TimePassed(50), TimePassed(110)]
    assert play(policy, *events)[1] == [StartRetrain("d1", "toy@1"), None, None, StartRetrain("d1", "toy@1")]


def test_a_person_decides_where_approval_is_needed():
    policy = RetrainPolicy(needs_approval=True)
    events = [
        RetrainApproved(0),
        DriftRaised("d1", "toy@1", 0),
        TimePassed(10**6),
        RetrainApproved(10**6),
        RetrainEnded(False, 10**6),
        RetrainApproved(10**6),
    ]
    wanted = StartRetrain("d1", "toy@1")
    asked = AskApproval("d1", "toy@1")
    assert play(policy, *events)[1] == [None, asked, None, wanted, asked, wanted]


def test_an_alert_while_retraining_is_not_taken_up():
    state, actions = play(
        RetrainPolicy(), DriftRaised("d1", "toy@1", 0), DriftRaised("d2", "toy@1", 1), RetrainEnded(True, 2)
    )
    assert actions[1:] == [None, None]
    assert state.waiting is None


def failing(policy, count):
    """Fail *count* times in a row as soon as each may start; return the times of the starts, state and last action."""
    state, action = policy.decide(RetrainState(), DriftRaised("d1", "toy@1", 0))
    starts, now = [0.0], 0.0
    for _ in range(count):
        now += 1
        state, action = policy.decide(state, RetrainEnded(False, now, reason="nobody trained"))
        while state.running is None and now < 10**7 and action is None:
            now += 1
            state, started = policy.decide(state, TimePassed(now))
            if started:
                starts.append(now)
    return starts, state, action


def test_the_wait_doubles_with_every_failure_in_a_row_up_to_its_bound():
    starts, state, _ = failing(RetrainPolicy(cool_down_s=10, longest_cool_down_s=35, most_failures=9), 5)
    # One second of work, then 10, 20, 35 and 35 and 35 seconds.
    assert [later - earlier for earlier, later in itertools.pairwise(starts)] == [11, 21, 36, 36, 36]
    assert state.failures == 5


def test_after_the_most_failures_a_person_is_asked_and_nothing_more_is_tried():
    policy = RetrainPolicy(cool_down_s=10, most_failures=3)
    starts, state, action = failing(policy, 3)
    assert len(starts) == 3
    assert action == GiveUp("d1", "toy@1", 3, "nobody trained")
    assert policy.decide(state, TimePassed(10**9)) == (state, None)
    state, action = policy.decide(state, DriftRaised("d2", "toy@1", 10**9))
    assert action is None
    state, action = policy.decide(state, RetrainApproved(10**9))
    assert action == StartRetrain("d2", "toy@1")
    assert policy.decide(state, RetrainEnded(False, 10**9, reason="again"))[1] == GiveUp("d2", "toy@1", 4, "again")


def test_a_release_that_was_sent_back_is_a_failure_of_its_retraining():
    policy = RetrainPolicy(cool_down_s=100)
    events = [
        DriftRaised("d1", "toy@1", 0),
        RetrainEnded(True, 10, "toy@2"),
        DriftRaised("d2", "toy@1", 11),
        ReleaseJudged("toy@9", False, 12, "another one"),
        ReleaseJudged("toy@2", False, 50, "below the floor"),
        TimePassed(149),
        TimePassed(150),
    ]
    state, actions = play(policy, *events)
    assert actions[1:] == [None] * 5 + [StartRetrain("d1", "toy@1")]
    assert (state.failures, state.proving) == (1, None)


def test_a_release_that_proves_itself_ends_the_row():
    policy = RetrainPolicy(cool_down_s=1)
    state = RetrainState(failures=3, proving=("toy@2", StartRetrain("d1", "toy@1")))
    after, action = policy.decide(state, ReleaseJudged("toy@2", True, 5))
    assert (after.failures, after.proving, action) == (0, None, None)
    after, _ = policy.decide(state, ReleaseJudged("toy@7", True, 5))
    assert (after.failures, after.proving) == (0, state.proving), "a person's release is as good"
    waiting = RetrainState(failures=3, waiting=StartRetrain("d1", "toy@1"))
    assert policy.decide(waiting, ReleaseJudged("toy@1", True, 5)) == (waiting, None), "it is the one that alerted"


def test_an_alert_about_the_release_that_a_retraining_made_is_its_failure():
    """Rolled out without a gate, and the world is no better for it."""
    policy = RetrainPolicy(cool_down_s=100, most_failures=2)
    state, actions = play(
        policy,
        DriftRaised("d1", "toy@1", 0),
        RetrainEnded(True, 10, "toy@2"),
        DriftRaised("d2", "toy@2", 20),
        TimePassed(110),
        RetrainEnded(True, 120, "toy@3"),
        DriftRaised("d3", "toy@3", 130),
    )
    assert actions[2:] == [
        None,
        StartRetrain("d2", "toy@2"),
        None,
        GiveUp("d3", "toy@3", 2, "toy@3 raised d3"),
    ]
    assert state.waiting == StartRetrain("d3", "toy@3")


def test_giving_up_comes_before_asking_for_approval():
    policy = RetrainPolicy(needs_approval=True, most_failures=1)
    events = [DriftRaised("d1", "toy@1", 0), RetrainApproved(1), RetrainEnded(False, 2, reason="no")]
    assert play(policy, *events)[1][-1] == GiveUp("d1", "toy@1", 1, "no")
