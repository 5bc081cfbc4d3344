from hypothesis import given
from hypothesis import strategies as st

from hedgerow.compile.inspection.facts import FileFacts, OperatorFacts
from hedgerow.compile.profile.memory import Lifetime, lifetimes, peak_bytes


def facts(*operators: tuple[tuple[str, ...], tuple[str, ...]], **sizes: int) -> FileFacts:
    graph = tuple(OperatorFacts(name="ADD", version=1, inputs=i, outputs=o) for i, o in operators)
    return FileFacts(
        operators=frozenset({"ADD"}),
        number_types=frozenset({"int8"}),
        quantized_weights=0,
        float_weights=0,
        graph=graph,
        tensor_bytes=sizes,
        inputs=("x",),
        outputs=("y",),
    )


def test_a_residual_block_holds_three_tensors_at_once():
    """Of x -> a -> b, then x + b -> y: while b is written, x, a and b live; while y is, x, b and y."""
    lives = lifetimes(facts((("x",), ("a",)), (("a",), ("b",)), (("x", "b"), ("y",)), x=100, a=50, b=60, y=70))
    assert {life.name: (life.first, life.last) for life in lives} == {
        "x": (0, 2), "a": (0, 1), "b": (1, 2), "y": (2, 2),
    }  # fmt: skip
    assert peak_bytes(lives) == 100 + 60 + 70


def test_a_tensor_nobody_reads_lives_while_it_is_written():
    lives = lifetimes(facts((("x",), ("y", "unused")), x=1, y=2, unused=4))
    assert peak_bytes(lives) == 7


def test_a_file_without_a_graph_needs_nothing():
    assert peak_bytes(()) == 0


@given(st.lists(st.tuples(st.integers(1, 500), st.integers(0, 8), st.integers(0, 4)), min_size=1, max_size=12))
def test_the_peak_is_the_most_that_lives_during_any_step(found):
    lives = tuple(Lifetime(size, first, first + length, str(n)) for n, (size, first, length) in enumerate(found))
    alive = [sum(life.size_bytes for life in lives if life.first <= step <= life.last) for step in range(13)]
    assert peak_bytes(lives) == max(alive)
