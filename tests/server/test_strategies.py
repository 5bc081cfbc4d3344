"""Tests of hedgerow.server.strategies."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord

from hedgerow.errors import PluginError, UnknownNameError
from hedgerow.server.errors import LocalTermError, StrategyOptionError
from hedgerow.server.flower import array_record, is_array_record
from hedgerow.server.grids.fleet import FleetGrid
from hedgerow.server.grids.transport import DeviceUpdate, SimulatedTransport
from hedgerow.server.privacy import PRIVACY
from hedgerow.server.strategies import (
    STRATEGIES,
    build_strategy,
    check_strategy,
    mean_suffices,
    privacy_terms,
    restore_state,
    strategy_state,
)
from hedgerow.server.training import initial_weights, train_task
from hedgerow.weights import decode_arrays
from tests.distributions import install_distribution

pytestmark = pytest.mark.heavy


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(UnknownNameError, match="did you mean 'fedavg'"):
        build_strategy("fedavgg", clients=8, learning_rate=0.1)


def test_the_default_is_in_the_table_and_all_summaries_are_one_line():
    assert "fedavg" in STRATEGIES
    assert all(spec.summary and "\n" not in spec.summary for spec in STRATEGIES.values())


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_learns_and_resumes_to_the_same_weights(name, tiny_task, tmp_path):
    whole = train_task(tiny_task, tmp_path / "whole", strategy=name, rounds=4)
    train_task(tiny_task, tmp_path / "parts", strategy=name, rounds=2)
    parts = train_task(tiny_task, tmp_path / "parts", strategy=name, rounds=4)

    assert whole.history[-1].loss < whole.history[0].loss
    assert all(value.dtype == np.float32 for value in whole.checkpoint.weights.values())
    for key, value in whole.checkpoint.weights.items():
        np.testing.assert_array_equal(value, parts.checkpoint.weights[key])


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_runs_under_flowers_own_loop_over_a_fleet(name):
    def step(change):
        return lambda work, device: DeviceUpdate(
            device=device,
            state="done",
            examples=2,
            metrics={"loss": 0.5},
            weights={key: value + np.float32(change) for key, value in work.weights.items()},
        )

    if name in {"fedprox", "scaffold"}:
        pytest.skip("train graphs take plain SGD steps; FleetGrid refuses it (test_fleet)")
    transport = SimulatedTransport({f"device-{i}": step(0.1 * i) for i in range(8)})
    strategy = build_strategy(name, clients=8, learning_rate=0.1)
    result = strategy.start(FleetGrid(transport), array_record({"w": np.zeros(3, np.float32)}), num_rounds=2)
    assert result.arrays["w"].numpy().shape == (3,)
    assert np.isfinite(result.arrays["w"].numpy()).all()


def test_state_of_a_new_strategy_is_empty_and_restoring_nothing_changes_nothing():
    strategy = build_strategy("fedavgm", clients=2, learning_rate=0.1)
    assert strategy_state("fedavgm", strategy) == {}
    restore_state("fedavgm", strategy, {})
    assert strategy.momentum_vector is None


def test_state_goes_into_named_arrays_and_back():
    strategy = build_strategy("fedavgm", clients=2, learning_rate=0.1)
    strategy.current_arrays = array_record({"a": np.ones(2), "b": np.zeros(1)})
    strategy.momentum_vector = [np.full(2, 3.0), np.full(1, 4.0)]
    saved = strategy_state("fedavgm", strategy)
    other = build_strategy("fedavgm", clients=2, learning_rate=0.1)
    restore_state("fedavgm", other, saved)

    assert sorted(saved) == [
        "current_arrays@record/a", "current_arrays@record/b", "momentum_vector/#000000", "momentum_vector/#000001",
    ]  # fmt: skip
    assert is_array_record(other.current_arrays)
    assert list(other.current_arrays) == ["a", "b"]
    assert [array.tolist() for array in other.momentum_vector] == [[3, 3], [4]]


def test_a_run_saved_before_there_was_a_mark_resumes_with_an_array_record():
    strategy = build_strategy("fedavgm", clients=2, learning_rate=0.1)
    restore_state("fedavgm", strategy, {"current_arrays/a": np.ones(2), "momentum_vector/#000000": np.full(2, 3.0)})
    assert is_array_record(strategy.current_arrays)
    assert strategy.current_arrays["a"].numpy().tolist() == [1, 1]
    assert strategy.momentum_vector[0].tolist() == [3, 3]


PRIVATE = [f"fedavg+{kind}:clip=0.5,noise=0.02" for kind in sorted(PRIVACY)]


@pytest.mark.parametrize("name", [*PRIVATE, "fedadam+server-adaptive:clip=0.2,noise=0.02,quantile=0.7,rate=0.1"])
def test_every_privacy_wrapper_learns_and_resumes_to_the_same_weights(name, tiny_task, tmp_path):
    whole = train_task(tiny_task, tmp_path / "whole", strategy=name, rounds=4)
    (tmp_path / "parts").mkdir()
    shutil.copy(tmp_path / "whole" / "noise.key", tmp_path / "parts")
    train_task(tiny_task, tmp_path / "parts", strategy=name, rounds=2)
    parts = train_task(tiny_task, tmp_path / "parts", strategy=name, rounds=4)

    assert whole.history[-1].loss < whole.history[0].loss
    assert whole.checkpoint.strategy == name
    for key, value in whole.checkpoint.weights.items():
        np.testing.assert_array_equal(value, parts.checkpoint.weights[key])
    assert parts.privacy.to_record() == whole.privacy.to_record() == whole.checkpoint.privacy
    assert parts.privacy.rounds == 4


def test_the_adapted_norm_is_saved_with_the_inner_strategys_state():
    name = "fedavgm+client-adaptive:clip=0.3,noise=0"
    strategy = build_strategy(name, clients=20, learning_rate=0.1)
    strategy.clipping_norm = 0.7
    strategy.strategy.momentum_vector = [np.ones(2)]
    saved = strategy_state(name, strategy)
    other = build_strategy(name, clients=20, learning_rate=0.1)
    assert other.clipping_norm == 0.3
    restore_state(name, other, saved)
    assert other.clipping_norm == 0.7
    assert other.strategy.momentum_vector[0].tolist() == [1, 1]


def test_the_mean_suffices_for_strategies_that_average_and_wrap_nothing():
    assert {name for name in STRATEGIES if mean_suffices(name)} == {
        "fedavg", "fedavgm", "fedprox", "fedadam", "fedyogi", "fedadagrad",
    }  # fmt: skip
    assert not any(mean_suffices(name) for name in PRIVATE)


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("fedav+client-fixed", UnknownNameError, "did you mean 'fedavg'"),
        ("fedavg+client-fixd", UnknownNameError, "did you mean 'client-fixed'"),
        ("fedavg+client-fixed:clop=1", StrategyOptionError, "an option 'clop'"),
        ("fedavg+client-fixed:quantile=0.5", StrategyOptionError, "an option 'quantile'"),
        ("fedavg+client-fixed:clip=much", StrategyOptionError, "no number"),
        ("fedavg+", UnknownNameError, "privacy wrapper"),
        ("krum+server-fixed", StrategyOptionError, "krum, in which one client can count for more than its share"),
        ("fedmedian+server-fixed", StrategyOptionError, "these average: fedavg, fedavgm, fedprox"),
        ("scaffold+client-fixed:noise=1", StrategyOptionError, "scaffold"),
        ("qfedavg+client-adaptive", StrategyOptionError, "qfedavg"),
    ],
)
def test_a_wrong_name_is_refused_before_anything_is_loaded(name, error, words):
    with pytest.raises(error, match=words):
        check_strategy(name)


def test_a_norm_of_zero_is_refused_in_one_sentence():
    with pytest.raises(StrategyOptionError, match="clip=0, which is not above 0"):
        build_strategy("fedavg+server-fixed:clip=0", clients=8, learning_rate=0.1)


def test_devices_refuse_to_clip_rather_than_leave_it_out():
    transport = SimulatedTransport({"a": lambda work, device: None})
    strategy = build_strategy("fedavg+client-fixed:clip=1", clients=1, learning_rate=0.1)
    with pytest.raises(LocalTermError, match="clipping_norm 1"):
        strategy.start(FleetGrid(transport), array_record({"w": np.zeros(3, np.float32)}), num_rounds=1)


OWN = '''
import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import FedAvg
from hedgerow.server.flower import array_record, numpy_arrays
from hedgerow.server.strategies import StrategySpec

class Mine(FedAvg):
    """Goes half as far as FedAvg."""
    def configure_train(self, server_round, arrays, config, grid):
        self.sent = numpy_arrays(arrays)
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round, replies):
        arrays, metrics = super().aggregate_train(server_round, replies)
        new = {name: (array + self.sent[name]) / 2 for name, array in numpy_arrays(arrays).items()}
        return array_record({name: array.astype(np.float32) for name, array in new.items()}), metrics

class Counting(Mine):
    """Goes half as far in every other round; it counts rounds."""
    def __init__(self, *, first, **settings):
        super().__init__(**settings)
        self.rounds = {"count": np.array(first)}

    def aggregate_train(self, server_round, replies):
        self.rounds = {"count": self.rounds["count"] + 1}
        turn = Mine if self.rounds["count"] % 2 else FedAvg
        return turn.aggregate_train(self, server_round, list(replies))

counting = StrategySpec(Counting, settings=lambda clients, rate: {"first": clients}, state=("rounds",))
private = StrategySpec(FedAvg, "averages", mean=True)
class Remembering(FedAvg):
    """Keeps the last weights as Flower gave them."""
    last = None

    def aggregate_train(self, server_round, replies):
        if self.last is not None:
            assert isinstance(self.last, ArrayRecord), type(self.last)
        arrays, metrics = super().aggregate_train(server_round, replies)
        self.last = arrays
        return arrays, metrics

remembering = StrategySpec(Remembering, state=("last",))
stateless = StrategySpec(Mine, state=("no_such_attribute",))

class Greedy:
    """No strategy."""

class Bare(FedAvg):
    def __init__(self):
        super().__init__()

def made(**settings):
    return settings

class Leaving(FedAvg):
    def __init__(self, **settings):
        raise SystemExit(0)

class Late(FedAvg):
    """Fails in a round."""
    def aggregate_train(self, server_round, replies):
        return self.given(list(replies))

class LeavingLate(Late):
    def given(self, replies):
        raise SystemExit(0)

class Searching(Late):
    def given(self, replies):
        return {}["momentum"]

class Silent(Late):
    def given(self, replies):
        return None

class Garbage(Late):
    def given(self, replies):
        return "arrays", None

class Words(Late):
    def given(self, replies):
        arrays = numpy_arrays(next(iter(replies[0].content.array_records.values())))
        return array_record({name: np.full(array.shape, "x") for name, array in arrays.items()}), None

class Unasking(FedAvg):
    def configure_train(self, server_round, arrays, config, grid):
        return None

class Asking(FedAvg):
    def configure_train(self, server_round, arrays, config, grid):
        return [1, 2]

class Breaking(FedAvg):
    def configure_train(self, server_round, arrays, config, grid):
        yield 1 / 0

class Losing(Mine):
    def __init__(self, **settings):
        super().__init__(**settings)
        self.rounds = 0

    def aggregate_train(self, server_round, replies):
        self.rounds = self.value
        return super().aggregate_train(server_round, replies)

class Seven(Losing):
    value = 7

class Things(Losing):
    value = [object()]

class Ragged(Losing):
    value = [[1, [2, 3]]]

class Misshapen(Late):
    def given(self, replies):
        return array_record({"w": [1, [2]]}), None

ragged = StrategySpec(Ragged, state=("rounds",))
seven = StrategySpec(Seven, state=("rounds",))
things = StrategySpec(Things, state=("rounds",))
private_late = StrategySpec(Silent, mean=True)
private_unasking = StrategySpec(Unasking, mean=True)

odd = StrategySpec(made)
'''


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own_strategies.py").write_text(OWN)
    return f"{tmp_path}/own_strategies.py"


def test_a_users_own_class_makes_the_step(own, tiny_task, tmp_path):
    start = initial_weights(tiny_task, 0)
    plain = train_task(tiny_task, tmp_path / "plain", rounds=1).checkpoint.weights
    result = train_task(tiny_task, tmp_path / "mine", strategy=f"{own}:Mine", rounds=1)

    for name, array in result.checkpoint.weights.items():
        np.testing.assert_allclose(array, (start[name] + plain[name]) / 2, rtol=1e-6, atol=1e-7)
    assert result.checkpoint.strategy == f"{own}:Mine"
    assert not mean_suffices(f"{own}:Mine")


def test_the_documents_strategy_goes_half_way_and_is_right_with_partial_sums(tiny_task, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    (tmp_path / "documented.py").write_text("\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)))
    name = f"{tmp_path}/documented.py:mine"
    start = initial_weights(tiny_task, 0)
    plain = train_task(tiny_task, tmp_path / "plain", rounds=1).checkpoint.weights
    mine = train_task(tiny_task, tmp_path / "mine", strategy=name, rounds=1).checkpoint.weights

    assert mean_suffices(name)
    assert privacy_terms(f"{name}+server-fixed:noise=2").noise == 2.0
    for key, array in mine.items():
        np.testing.assert_allclose(array, (start[key] + plain[key]) / 2, rtol=1e-6, atol=1e-7)


def test_a_users_own_record_carries_settings_and_state_over_a_stop(own, tiny_task, tmp_path):
    name = f"{own}:counting"
    whole = train_task(tiny_task, tmp_path / "whole", strategy=name, rounds=4, clients=3)
    train_task(tiny_task, tmp_path / "parts", strategy=name, rounds=1, clients=3)
    parts = train_task(tiny_task, tmp_path / "parts", strategy=name, rounds=4, clients=3)

    # It begins at the number of clients, three.
    kept = decode_arrays(
        (tmp_path / "parts" / "rounds" / "000004" / "strategy.safetensors").read_bytes(), "state", limit_bytes=2**20
    )
    assert kept["rounds/count"] == 3 + 4
    for key, array in whole.checkpoint.weights.items():
        np.testing.assert_array_equal(parts.checkpoint.weights[key], array)


def test_a_users_own_state_that_was_an_array_record_comes_back_as_one(own, tiny_task, tmp_path):
    name = f"{own}:remembering"
    train_task(tiny_task, tmp_path / "run", strategy=name, rounds=1, clients=3)
    kept = decode_arrays(
        (tmp_path / "run" / "rounds" / "000001" / "strategy.safetensors").read_bytes(), "state", limit_bytes=2**20
    )
    strategy = build_strategy(name, clients=3, learning_rate=0.1)
    restore_state(name, strategy, kept)

    assert is_array_record(strategy.last)
    # The second round raises where the strategy gets anything else.
    resumed = train_task(tiny_task, tmp_path / "run", strategy=name, rounds=2, clients=3)
    assert [entry.refused for entry in resumed.history] == [{}, {}]


def test_a_strategy_of_a_distribution_is_found_by_its_name(own, tiny_task, tmp_path, monkeypatch):
    points = {"hedgerow.strategies": {"half-way": "offers_strategies:Mine"}}
    install_distribution(tmp_path / "site", "offers_strategies", OWN, points)
    with pytest.raises(UnknownNameError):
        check_strategy("half-way")
    monkeypatch.syspath_prepend(tmp_path / "site")

    check_strategy("half-way")
    found = train_task(tiny_task, tmp_path / "found", strategy="half-way", rounds=2)
    named = train_task(tiny_task, tmp_path / "named", strategy=f"{own}:Mine", rounds=2)
    for key, array in named.checkpoint.weights.items():
        np.testing.assert_array_equal(found.checkpoint.weights[key], array)
    with pytest.raises(UnknownNameError, match="did you mean 'half-way'"):
        check_strategy("halfway")


def test_a_strategy_that_nobody_can_ask_for_is_not_offered(tmp_path, monkeypatch, caplog):
    points = {"hedgerow.strategies": {"a+b": "offers_plus_strategy:Mine"}}
    install_distribution(tmp_path / "site", "offers_plus_strategy", OWN, points)
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(UnknownNameError) as caught:
        check_strategy("a+b")
    assert caught.value.known == tuple(sorted(STRATEGIES))
    assert "'a+b'" in caplog.text
    assert "its name holds '+'" in caplog.text


def test_a_plus_in_the_path_of_a_users_own_is_none_of_privacy(tmp_path):
    (tmp_path / "c++").mkdir()
    (tmp_path / "c++" / "own_averaging.py").write_text(OWN)
    name = f"{tmp_path}/c++/own_averaging.py:private"
    assert privacy_terms(name) is None
    assert privacy_terms(f"{name}+server-fixed:noise=2").noise == 2.0


def test_privacy_wraps_a_users_own_that_says_it_averages(own):
    strategy = build_strategy(f"{own}:private+server-fixed:clip=1,noise=0.5", clients=4, learning_rate=0.1)
    assert strategy.terms.noise == 0.5
    assert mean_suffices(f"{own}:private")


def test_a_wrapper_on_a_users_own_class_asks_for_a_record_that_says_it_averages(own):
    with pytest.raises(StrategyOptionError) as caught:
        check_strategy(f"{own}:Mine+server-fixed:noise=1")
    assert str(caught.value).endswith(
        f"with {own}:Mine, which does not say that it averages; if the mean of the updates, weighted by examples, is "
        "all it needs, name a StrategySpec of it with mean=True"
    )


@pytest.mark.parametrize(
    ("attribute", "said"),
    [
        ("Greedy", "expected a class derived from FedAvg or a StrategySpec, found Greedy"),
        ("OWN", "has no 'OWN'"),
        ("np", "found module"),
    ],
)
def test_what_is_no_strategy_is_refused_before_any_work(own, attribute, said):
    with pytest.raises(PluginError, match=said):
        check_strategy(f"{own}:{attribute}")


@pytest.mark.parametrize(
    ("attribute", "said"),
    [
        ("Bare", "making it raised TypeError: .* let it take fraction_train, min_train_nodes"),
        ("Leaving", "making it raised SystemExit: 0; let it take fraction_train"),
        ("odd", "found dict; derive it from FedAvg"),
        ("stateless", "expected the attribute no_such_attribute, found none"),
    ],
)
def test_what_makes_no_strategy_is_blamed_on_its_user(own, attribute, said):
    check_strategy(f"{own}:{attribute}")
    with pytest.raises(PluginError, match=said):
        build_strategy(f"{own}:{attribute}", clients=4, learning_rate=0.1)


@pytest.mark.parametrize(
    ("attribute", "said"),
    [
        ("LeavingLate", "its aggregate_train raised SystemExit: 0; correct it"),
        ("Searching", "its aggregate_train raised KeyError: 'momentum'; correct it"),
        ("Silent", "expected of its aggregate_train .* found NoneType; correct it"),
        ("Garbage", r"expected of its aggregate_train .* found \(str, NoneType\)"),
        ("Words", "expected of its aggregate_train arrays of numbers, found <U1"),
        ("Unasking", "expected of its configure_train messages, found NoneType"),
        ("Asking", "expected of its configure_train messages, found int"),
        ("Breaking", "its configure_train raised ZeroDivisionError: division by zero"),
        ("seven", "expected arrays in its attribute rounds, found int"),
        ("ragged", "expected arrays in its attribute rounds, found list"),
        ("Misshapen", "its aggregate_train raised "),
        ("things", "expected arrays in its attribute rounds, found list"),
        ("private_late+server-fixed:clip=1,noise=0", "expected of its aggregate_train .* found NoneType"),
        ("private_unasking+server-fixed:clip=1,noise=0", "expected of its configure_train messages, found NoneType"),
    ],
)
def test_what_fails_in_a_round_is_blamed_on_the_strategy_of_the_user(own, tiny_task, tmp_path, attribute, said):
    with pytest.raises(PluginError, match=said) as caught:
        train_task(tiny_task, tmp_path / "run", strategy=f"{own}:{attribute}", rounds=1)
    assert caught.value.name == f"{own}:{attribute}".partition("+")[0]


def test_a_mistake_in_our_own_lines_is_not_blamed_on_the_strategy_of_the_user(own):
    ours = {"__name__": "hedgerow.server.grids.in_process"}
    exec("def get_node_ids(self):\n    return {}['ours']\n", ours)  # noqa: S102 (text of this test)
    grid = type("Grid", (), {"get_node_ids": ours["get_node_ids"]})()
    strategy = build_strategy(f"{own}:Mine", clients=2, learning_rate=0.1)

    with pytest.raises(KeyError, match="ours"):
        list(strategy.configure_train(1, array_record({}), ConfigRecord(), grid))


HONEST = np.array(
    [
        [1.0, -2.0, 0.5],
        [1.1, -2.2, 0.4],
        [0.9, -1.9, 0.7],
        [1.3, -2.1, 0.6],
        [0.8, -1.7, 0.3],
        [1.2, -2.4, 0.55],
        [1.05, -1.8, 0.45],
    ]
)
LIES = ([4.0, 5.0, -6.0], [-4.0, -5.0, -6.0])
"""Near enough that the border for updates lets them pass."""

EXAMPLES = (10, 17, 12, 13, 14, 21, 16)


def told(honest: int, lies: list[list[float]]) -> tuple[np.ndarray, np.ndarray]:
    """Return what the clients send, ``[clients, 3]``, and on how many examples each says it was trained."""
    return np.array([*HONEST[:honest], *lies]), np.array([*EXAMPLES[:honest], *[30] * len(lies)])


def aggregated(name: str, sent: np.ndarray, examples: np.ndarray) -> np.ndarray:
    def answer(row: int):
        return lambda work, device: DeviceUpdate(
            device=device,
            state="done",
            examples=int(examples[row]),
            metrics={"loss": 0.5},
            weights={key: sent[row].astype(np.float32) for key in work.weights},
        )

    transport = SimulatedTransport({f"device-{row}": answer(row) for row in range(len(sent))})
    strategy = build_strategy(name, clients=len(sent), learning_rate=0.1)
    result = strategy.start(FleetGrid(transport), array_record({"w": np.zeros(3, np.float32)}), num_rounds=1)
    return result.arrays["w"].numpy()


def krum_scores(sent: np.ndarray, malicious: int) -> np.ndarray:
    """Blanchard et al. 2017: the sum of squared distances to the n - f - 2 nearest others."""
    distances = ((sent[:, None] - sent[None]) ** 2).sum(axis=2)
    others = [np.sort(np.delete(row, place)) for place, row in enumerate(distances)]
    return np.array([row[: len(sent) - malicious - 2].sum() for row in others])


def mean_of(sent: np.ndarray, examples: np.ndarray) -> np.ndarray:
    return (sent * examples[:, None]).sum(axis=0) / examples.sum()


def median(sent: np.ndarray, _examples: np.ndarray) -> np.ndarray:
    ordered = np.sort(sent, axis=0)
    return (ordered[(len(sent) - 1) // 2] + ordered[len(sent) // 2]) / 2


def trimmed_mean(sent: np.ndarray, _examples: np.ndarray) -> np.ndarray:
    return np.sort(sent, axis=0)[1:-1].mean(axis=0)


def krum(sent: np.ndarray, _examples: np.ndarray) -> np.ndarray:
    return sent[krum_scores(sent, 2).argmin()]


def multikrum(sent: np.ndarray, examples: np.ndarray) -> np.ndarray:
    chosen = np.argsort(krum_scores(sent, 2))[: len(sent) - 2]
    return mean_of(sent[chosen], examples[chosen])


ROBUST = {
    "fedmedian": (6, 2, median),
    "fedtrimmedavg": (7, 1, trimmed_mean),
    "krum": (6, 2, krum),
    "multikrum": (6, 2, multikrum),
}
"""Strategy -> honest clients, liars that it is to stand, and what it makes of their updates."""


@pytest.mark.parametrize("lie", LIES, ids=["up", "down"])
@pytest.mark.parametrize("name", sorted(ROBUST))
def test_a_robust_strategy_makes_of_lies_what_its_paper_says(name, lie):
    honest, liars, rule = ROBUST[name]
    sent, examples = told(honest, [lie] * liars)

    found = aggregated(name, sent, examples)

    np.testing.assert_allclose(found, rule(sent, examples), rtol=1e-5)
    lowest, highest = HONEST[:honest].min(axis=0), HONEST[:honest].max(axis=0)
    assert ((lowest <= found) & (found <= highest)).all(), "no coordinate lies outside what honest clients sent"


@pytest.mark.parametrize("lie", LIES, ids=["up", "down"])
def test_bulyan_stays_among_honest_updates(lie):
    sent, examples = told(7, [lie])

    found = aggregated("bulyan", sent, examples)

    assert ((HONEST.min(axis=0) <= found) & (found <= HONEST.max(axis=0))).all()
    assert np.abs(found - HONEST.mean(axis=0)).max() < 0.1


@pytest.mark.parametrize("lie", LIES, ids=["up", "down"])
def test_a_plain_mean_goes_where_the_lies_pull_it_by_the_examples_that_they_claim(lie):
    sent, examples = told(6, [lie] * 2)

    found = aggregated("fedavg", sent, examples)

    np.testing.assert_allclose(found, mean_of(sent, examples), rtol=1e-5)
    assert ((found < HONEST[:6].min(axis=0)) | (found > HONEST[:6].max(axis=0))).any()
