import pytest

from hedgerow.fleet.errors import TrainingRoundError
from hedgerow.fleet.retrain.exchange import TrainingExchange


@pytest.fixture
def exchange():
    return TrainingExchange()


def refusal(function, *arguments):
    with pytest.raises(TrainingRoundError) as caught:
        function(*arguments)
    return caught.value.status


def test_each_device_has_a_token_of_its_own_that_goes_with_the_round(exchange):
    came = []
    tokens = exchange.open_round("r", 1, b"weights", ["a", "b"], came.append)
    assert len(set(tokens.values())) == 2
    assert exchange.weights("r", 1, tokens["a"]) == b"weights"
    assert exchange.has_fetched("r", 1, "a")
    assert not exchange.has_fetched("r", 1, "b")
    exchange.accept("r", 1, "a", tokens["a"], b"new")
    assert exchange.upload("r", 1, "a") == b"new"
    assert came == ["a"]
    exchange.close_round("r", 1)
    assert refusal(exchange.weights, "r", 1, tokens["a"]) == 404
    assert exchange.upload("r", 1, "a") is None


def test_tokens_of_others_are_refused(exchange):
    tokens = exchange.open_round("r", 1, b"weights", ["a", "b"], lambda _device: None)
    later = exchange.open_round("r", 2, b"weights", ["a"], lambda _device: None)
    assert refusal(exchange.weights, "r", 1, "guess") == 401
    assert refusal(exchange.weights, "r", 1, later["a"]) == 401
    assert refusal(exchange.accept, "r", 1, "a", tokens["b"], b"x") == 401
    assert refusal(exchange.accept, "r", 1, "nobody", tokens["a"], b"x") == 401
    assert refusal(exchange.begin, "r", 1, "a", tokens["b"]) == 401


def test_an_update_is_not_much_longer_than_the_weights(exchange):
    tokens = exchange.open_round("r", 1, b"w" * 1000, ["a"], lambda _device: None)
    limit_bytes = exchange.begin("r", 1, "a", tokens["a"]).limit_bytes
    assert 1000 < limit_bytes < 100_000
    assert refusal(exchange.accept, "r", 1, "a", tokens["a"], b"x" * (limit_bytes + 1)) == 413


def test_no_token_is_kept(exchange):
    tokens = exchange.open_round("r", 1, b"weights", ["a"], lambda _device: None)
    kept = repr(exchange._rounds["r", 1])
    assert tokens["a"] not in kept


def test_half_an_update_gives_way_to_the_next_one_and_goes_with_the_round(exchange):
    tokens = exchange.open_round("r", 1, b"weights", ["a"], lambda _device: None)
    first = exchange.begin("r", 1, "a", tokens["a"])
    first.add(b"ha")
    second = exchange.begin("r", 1, "a", tokens["a"])
    assert refusal(first.add, b"lf") == 409
    second.add(b"whole")
    exchange.finish("r", 1, "a", second)
    assert exchange.upload("r", 1, "a") == b"whole"
    assert refusal(exchange.finish, "r", 1, "a", first) == 409
    third = exchange.begin("r", 1, "a", tokens["a"])
    exchange.close_round("r", 1)
    assert refusal(third.add, b"late") == 409
    assert refusal(exchange.finish, "r", 1, "a", third) == 404


def test_an_update_keeps_nothing_once_it_was_refused(exchange):
    tokens = exchange.open_round("r", 1, b"weights", ["a"], lambda _device: None)
    upload = exchange.begin("r", 1, "a", tokens["a"])
    upload.add(b"x" * upload.limit_bytes)
    assert refusal(upload.add, b"x") == 413
    assert refusal(upload.take) == 409
    assert exchange.upload("r", 1, "a") is None
