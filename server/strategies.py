"""How updates become new weights: a table of Flower's own strategies, with settings that suit a first try.

The table says for each strategy which of its attributes carry state from round to round, so that a run can be saved
and resumed. Importing this module does not import Flower.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hedgerow.plugins import Plugin, load_plugin
from hedgerow.server.flower import adopt_flower, array_record, is_array_record, numpy_arrays
from hedgerow.weights import Arrays

__all__ = ["STRATEGIES", "StrategySpec", "build_strategy", "restore_state", "strategy_state"]

Settings = Callable[[int, float], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class StrategySpec:
    """One entry of the table.

    Attributes:
        plugin: Flower's class.
        summary: One line for people.
        settings: (clients, local learning rate) -> arguments of the class.
        state: Attributes that carry state between rounds.
    """

    plugin: Plugin
    summary: str
    settings: Settings = lambda _clients, _learning_rate: {}
    state: tuple[str, ...] = ()


def _flower(name: str) -> Plugin:
    return Plugin(f"flwr.serverapp.strategy:{name}", "train")


def _tolerated(clients: int, needed_per_fault: int) -> int:
    """Return how many malicious clients a rule bears that needs ``needed_per_fault * f + 3`` clients for f of them."""
    return max(0, (clients - 3) // needed_per_fault)


STRATEGIES: Mapping[str, StrategySpec] = {
    "fedavg": StrategySpec(_flower("FedAvg"), "weighted mean (McMahan et al. 2017)"),
    "fedavgm": StrategySpec(
        _flower("FedAvgM"),
        "weighted mean with server momentum (Hsu et al. 2019)",
        # The learning rate times 1 / (1 - momentum) is 1: as far as FedAvg goes, but smoother.
        lambda _clients, _rate: {"server_learning_rate": 0.5, "server_momentum": 0.5},
        ("current_arrays", "momentum_vector"),
    ),
    "fedprox": StrategySpec(
        _flower("FedProx"),
        "weighted mean; local steps are pulled to the global weights (Li et al. 2020)",
        lambda _clients, _rate: {"proximal_mu": 0.01},
    ),
    "fedadam": StrategySpec(
        _flower("FedAdam"),
        "Adam on the server (Reddi et al. 2021)",
        lambda _clients, rate: {"eta": 0.02, "eta_l": rate, "tau": 1e-3},
        ("m_t", "v_t"),
    ),
    "fedyogi": StrategySpec(
        _flower("FedYogi"),
        "Yogi on the server (Reddi et al. 2021)",
        lambda _clients, rate: {"eta": 0.02, "eta_l": rate, "tau": 1e-3},
        ("m_t", "v_t"),
    ),
    "fedadagrad": StrategySpec(
        _flower("FedAdagrad"),
        "Adagrad on the server (Reddi et al. 2021)",
        lambda _clients, rate: {"eta": 0.05, "eta_l": rate, "tau": 1e-2},
        ("m_t", "v_t"),
    ),
    "fedmedian": StrategySpec(_flower("FedMedian"), "coordinate-wise median (Yin et al. 2018)"),
    "fedtrimmedavg": StrategySpec(_flower("FedTrimmedAvg"), "coordinate-wise trimmed mean (Yin et al. 2018)"),
    "qfedavg": StrategySpec(
        _flower("QFedAvg"),
        "more weight to clients with a high loss (Li et al. 2020)",
        lambda _clients, rate: {"client_learning_rate": rate, "q": 0.1, "train_loss_key": "loss"},
    ),
    "krum": StrategySpec(
        _flower("Krum"),
        "the one update that is nearest to the others (Blanchard et al. 2017)",
        lambda clients, _rate: {"num_malicious_nodes": _tolerated(clients, 2)},
    ),
    "multikrum": StrategySpec(
        _flower("MultiKrum"),
        "mean of the updates that are nearest to the others (Blanchard et al. 2017)",
        lambda clients, _rate: {
            "num_malicious_nodes": _tolerated(clients, 2),
            "num_nodes_to_select": max(1, clients - _tolerated(clients, 2)),
        },
    ),
    "bulyan": StrategySpec(
        _flower("Bulyan"),
        "trimmed mean of updates that Krum selects (El Mhamdi et al. 2018)",
        lambda clients, _rate: {"num_malicious_nodes": _tolerated(clients, 4)},
    ),
}


def build_strategy(name: str, *, clients: int, learning_rate: float, fraction: float = 1.0) -> Any:
    """Make a Flower strategy.

    Args:
        name: A key of :data:`STRATEGIES`.
        clients: How many clients take part in a round; robust rules derive from it how many they mistrust.
        learning_rate: The clients' step size, which some strategies need to know.
        fraction: Share of the nodes that each round samples.

    Raises:
        UnknownNameError: The table has no such name.
        ExtraNotInstalledError: Flower is absent.
        FlowerVersionError: The installed Flower was not tested.
    """
    plugins = {known: spec.plugin for known, spec in STRATEGIES.items()}
    strategy_class = load_plugin("strategy", plugins, name)
    adopt_flower()
    settings = STRATEGIES[name].settings(clients, learning_rate)
    # A minimum of 1: who is there is judged before a round, because Flower itself waits without end.
    return strategy_class(
        fraction_train=fraction, min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1, **settings
    )


def strategy_state(name: str, strategy: Any) -> Arrays:
    """Return what *strategy* carries to the next round as named arrays: ``attribute/key`` -> array."""
    arrays: Arrays = {}
    for attribute in STRATEGIES[name].state:
        value = getattr(strategy, attribute)
        if value is None:
            continue
        items = numpy_arrays(value) if is_array_record(value) else value
        pairs = items.items() if isinstance(items, Mapping) else ((f"#{i:06d}", item) for i, item in enumerate(items))
        arrays.update({f"{attribute}/{key}": np.asarray(array) for key, array in pairs})
    return arrays


def restore_state(name: str, strategy: Any, arrays: Arrays) -> None:
    """Give a new *strategy* the state that :func:`strategy_state` returned."""
    for attribute in STRATEGIES[name].state:
        prefix = f"{attribute}/"
        held = {key.removeprefix(prefix): arrays[key] for key in sorted(arrays) if key.startswith(prefix)}
        if not held:
            continue
        if all(key.startswith("#") for key in held):
            setattr(strategy, attribute, list(held.values()))
        elif attribute == "current_arrays":
            setattr(strategy, attribute, array_record(held))
        else:
            setattr(strategy, attribute, held)
