from hedgerow.fleet.retrain_policy import (
    AskApproval,
    DriftRaised,
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
