"""One is one, all else is many."""

import pytest

from hedgerow.counted import counted


@pytest.mark.parametrize(("number", "said"), [(0, "0 rounds"), (1, "1 round"), (2, "2 rounds"), (1200, "1,200 rounds")])
def test_a_noun_is_plural_unless_there_is_one(number, said):
    assert counted(number, "round") == said
