from hypothesis import given
from hypothesis import strategies as st

from hedgerow.compile.passes.sensitivity import widen, worst_first


def test_the_layer_that_hurts_most_alone_comes_first():
    alone_db = {"stem": 40.0, "depthwise": 12.0, "head": 25.0, "same": 40.0}
    assert worst_first(tuple(alone_db), alone_db.__getitem__) == ("depthwise", "head", "stem", "same")


def test_nothing_stays_wide_when_everything_narrow_is_good_enough():
    assert widen(("a", "b"), lambda _wide: 30.0, 30.0) == ()


def test_everything_stays_wide_when_not_even_that_is_enough():
    assert widen(("a", "b"), lambda _wide: 10.0, 30.0) == ("a", "b")


@given(st.lists(st.floats(0.01, 20.0), min_size=1, max_size=30), st.floats(0.0, 120.0))
def test_the_fewest_of_the_worst_layers_stay_wide(gains_db, minimum_db):
    """The quality grows with every layer that stays wide, here by its own gain."""
    ranked = tuple(f"layer-{index}" for index in range(len(gains_db)))
    measured: dict[int, float] = {}

    def quality_db(wide):
        measured[len(wide)] = sum(gains_db[: len(wide)])
        return measured[len(wide)]

    kept = widen(ranked, quality_db, minimum_db)
    assert kept == ranked[: len(kept)]
    if len(kept) < len(ranked):
        assert measured[len(kept)] >= minimum_db
    if kept:
        assert sum(gains_db[: len(kept) - 1]) < minimum_db
    assert len(measured) <= len(ranked).bit_length() + 1
