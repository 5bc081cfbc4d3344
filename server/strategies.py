"""How updates become new weights: a table of Flower's own strategies and one of ours, with settings for a first try.

The table says for each strategy which of its attributes carry state from round to round, so that a run can be saved
and resumed, and whether it needs no more than the mean of the updates. The name of one that does not may go on with a
differential-privacy wrapper (``hedgerow.server.privacy``), ``fedavg+client-fixed:clip=1,noise=0.5``; it is part of the
name so that whatever records the strategy of a run records it. Importing this module does not import Flower.

``FedXgbBagging`` and ``FedXgbCyclic`` are not in the table: their updates are trees, which no task here has. They run
on grids of arbitrary ClientApps.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hedgerow.errors import UnknownNameError
from hedgerow.plugins import Plugin, load_plugin
from hedgerow.server.errors import StrategyOptionError
from hedgerow.server.flower import adopt_flower, array_record, clipping_keys, is_array_record, numpy_arrays
from hedgerow.server.privacy import PrivacyTerms, parse_privacy
from hedgerow.weights import Arrays

__all__ = [
    "STRATEGIES",
    "StrategySpec",
    "build_strategy",
    "check_strategy",
    "mean_suffices",
    "needed_metrics",
    "privacy_terms",
    "restore_state",
    "strategy_state",
]

Settings = Callable[[int, float], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class StrategySpec:
    """One entry of the table.

    Attributes:
        plugin: The class.
        summary: One line for people.
        settings: (clients, local learning rate) -> arguments of the class.
        state: Attributes that carry state between rounds.
        mean: The mean of the updates, weighted by examples, is all it needs; partial sums may stand for them.
        metrics: Metrics of clients that it computes with -> between what they must lie.
    """

    plugin: Plugin
    summary: str
    settings: Settings = lambda _clients, _learning_rate: {}
    state: tuple[str, ...] = ()
    mean: bool = False
    metrics: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def _flower(name: str) -> Plugin:
    return Plugin(f"flwr.serverapp.strategy:{name}", "train")


def _tolerated(clients: int, needed_per_fault: int) -> int:
    """Return how many malicious clients a rule bears that needs ``needed_per_fault * f + 3`` clients for f of them."""
    return max(0, (clients - 3) // needed_per_fault)


STRATEGIES: Mapping[str, StrategySpec] = {
    "fedavg": StrategySpec(_flower("FedAvg"), "weighted mean (McMahan et al. 2017)", mean=True),
    "fedavgm": StrategySpec(
        _flower("FedAvgM"),
        "weighted mean with server momentum (Hsu et al. 2019)",
        # The learning rate times 1 / (1 - momentum) is 1: as far as FedAvg goes, but smoother.
        lambda _clients, _rate: {"server_learning_rate": 0.5, "server_momentum": 0.5},
        ("current_arrays", "momentum_vector"),
        mean=True,
    ),
    "fedprox": StrategySpec(
        _flower("FedProx"),
        "weighted mean; local steps are pulled to the global weights (Li et al. 2020)",
        lambda _clients, _rate: {"proximal_mu": 0.01},
        mean=True,
    ),
    "fedadam": StrategySpec(
        _flower("FedAdam"),
        "Adam on the server (Reddi et al. 2021)",
        lambda _clients, rate: {"eta": 0.02, "eta_l": rate, "tau": 1e-3},
        ("m_t", "v_t"),
        mean=True,
    ),
    "fedyogi": StrategySpec(
        _flower("FedYogi"),
        "Yogi on the server (Reddi et al. 2021)",
        lambda _clients, rate: {"eta": 0.02, "eta_l": rate, "tau": 1e-3},
        ("m_t", "v_t"),
        mean=True,
    ),
    "fedadagrad": StrategySpec(
        _flower("FedAdagrad"),
        "Adagrad on the server (Reddi et al. 2021)",
        lambda _clients, rate: {"eta": 0.05, "eta_l": rate, "tau": 1e-2},
        ("m_t", "v_t"),
        mean=True,
    ),
    "fedmedian": StrategySpec(_flower("FedMedian"), "coordinate-wise median (Yin et al. 2018)"),
    "fedtrimmedavg": StrategySpec(_flower("FedTrimmedAvg"), "coordinate-wise trimmed mean (Yin et al. 2018)"),
    "qfedavg": StrategySpec(
        _flower("QFedAvg"),
        "more weight to clients with a high loss (Li et al. 2020)",
        lambda _clients, rate: {"client_learning_rate": rate, "q": 0.1, "train_loss_key": "loss"},
        # It raises losses to a power.
        metrics={"loss": (0.0, 1e30)},
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
    "scaffold": StrategySpec(
        Plugin("hedgerow.server.scaffold:Scaffold", "train"),
        "plain mean; control variates correct local steps that drift apart (Karimireddy et al. 2020)",
        lambda _clients, rate: {"learning_rate": rate},
        ("controls",),
        metrics={"steps": (1, 2**31)},
    ),
}


_WRAPPER = Plugin("hedgerow.server.private_strategy:PrivateMean", "train")
_CLIPPING_NORM = "privacy/clipping_norm"


def check_strategy(name: str) -> None:
    """Refuse a *name* that :func:`build_strategy` cannot make; imports nothing.

    Raises:
        UnknownNameError: No strategy or no wrapper has this name.
        StrategyOptionError: An option of the wrapper is unknown or no number, or the strategy cannot be wrapped.
    """
    _parsed(name)


def mean_suffices(name: str) -> bool:
    """Tell whether strategy *name* needs no more than partial sums of the updates.

    The privacy wrappers do not: they clip or count update by update.
    """
    base, terms = _parsed(name)
    return STRATEGIES[base].mean and terms is None


def needed_metrics(name: str) -> Mapping[str, tuple[float, float]]:
    """Return the metrics of clients that strategy *name* computes with -> between what they must lie."""
    base, terms = _parsed(name)
    counts_clipped = terms is not None and terms.by_client and terms.adaptive
    return {**STRATEGIES[base].metrics, **({clipping_keys()[1]: (0, 1)} if counts_clipped else {})}


def privacy_terms(name: str) -> PrivacyTerms | None:
    """Return what strategy *name* promises, or None if it promises nothing."""
    return _parsed(name)[1]


def build_strategy(name: str, *, clients: int, learning_rate: float, fraction: float = 1.0) -> Any:
    """Make a Flower strategy.

    Args:
        name: A key of :data:`STRATEGIES`; for differential privacy followed by ``+``, a key of :data:`PRIVACY`, and
            options: ``clip`` (norm, or the first one), ``noise`` (multiplier), ``delta``, and for adaptive clipping
            ``quantile``, ``rate`` and ``count-noise``, as in
            ``fedavg+client-adaptive:clip=0.1,noise=0.3,quantile=0.5`` (``hedgerow.server.privacy.PrivacyTerms``).
        clients: How many clients take part in a round; robust rules derive from it how many they mistrust, adaptive
            clipping its noise on a count.
        learning_rate: The clients' step size, which some strategies need to know.
        fraction: Share of the nodes that each round samples.

    Raises:
        UnknownNameError: No strategy or no wrapper has this name.
        StrategyOptionError: An option of the wrapper is unknown or out of its range.
        ExtraNotInstalledError: Flower is absent.
        FlowerVersionError: The installed Flower was not tested.
    """
    base, terms = _parsed(name, clients)
    plugins = {known: spec.plugin for known, spec in STRATEGIES.items()}
    strategy_class = load_plugin("strategy", plugins, base)
    adopt_flower()
    settings = STRATEGIES[base].settings(clients, learning_rate)
    # A minimum of 1: who is there is judged before a round, because Flower itself waits without end.
    strategy = strategy_class(
        fraction_train=fraction, min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1, **settings
    )
    if terms is None:
        return strategy
    return load_plugin("privacy wrapper", {terms.kind: _WRAPPER}, terms.kind)(strategy, terms, clients)


def _parsed(name: str, clients: int | None = None) -> tuple[str, PrivacyTerms | None]:
    """Return the strategy's key, and the terms of the wrapper if there is one."""
    base, plus, privacy = name.partition("+")
    if base not in STRATEGIES:
        raise UnknownNameError("strategy", base, STRATEGIES)
    if not plus:
        return base, None
    kind, _colon, text = privacy.partition(":")
    terms = parse_privacy(name, kind, text, clients=clients)
    if not STRATEGIES[base].mean:
        averaging = ", ".join(known for known, spec in STRATEGIES.items() if spec.mean)
        raise StrategyOptionError(
            name, f"{base}, in which one client can count for more than its share (these average: {averaging})"
        )
    return base, terms


def strategy_state(name: str, strategy: Any) -> Arrays:
    """Return what *strategy* carries to the next round as named arrays: ``attribute/key`` -> array."""
    base, terms = _parsed(name)
    arrays: Arrays = {}
    if terms is not None:
        arrays[_CLIPPING_NORM] = np.asarray(strategy.clipping_norm, np.float64)
        strategy = strategy.strategy
    for attribute in STRATEGIES[base].state:
        value = getattr(strategy, attribute)
        if value is None:
            continue
        items = numpy_arrays(value) if is_array_record(value) else value
        pairs = items.items() if isinstance(items, Mapping) else ((f"#{i:06d}", item) for i, item in enumerate(items))
        arrays.update({f"{attribute}/{key}": np.asarray(array) for key, array in pairs})
    return arrays


def restore_state(name: str, strategy: Any, arrays: Arrays) -> None:
    """Give a new *strategy* the state that :func:`strategy_state` returned."""
    base, terms = _parsed(name)
    if terms is not None:
        if _CLIPPING_NORM in arrays:
            strategy.clipping_norm = float(arrays[_CLIPPING_NORM])
        strategy = strategy.strategy
    for attribute in STRATEGIES[base].state:
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
