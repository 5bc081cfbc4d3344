"""How updates become new weights: a table of Flower's own strategies and one of ours, with settings for a first try.

The table says for each strategy which of its attributes carry state from round to round, so that a run can be saved
and resumed, and whether it needs no more than the mean of the updates. A name may go on with one of Flower's
differential-privacy wrappers, ``fedavg+client-fixed:clip=1,noise=0.5``; it is part of the name so that whatever records
the strategy of a run records it. Importing this module does not import Flower.

``FedXgbBagging`` and ``FedXgbCyclic`` are not in the table: their updates are trees, which no task here has. They run
on grids of arbitrary ClientApps.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hedgerow.errors import UnknownNameError
from hedgerow.plugins import Plugin, load_plugin
from hedgerow.server.errors import StrategyOptionError
from hedgerow.server.flower import adopt_flower, array_record, is_array_record, numpy_arrays
from hedgerow.weights import Arrays

__all__ = [
    "PRIVACY",
    "STRATEGIES",
    "StrategySpec",
    "build_strategy",
    "check_strategy",
    "mean_suffices",
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
    """

    plugin: Plugin
    summary: str
    settings: Settings = lambda _clients, _learning_rate: {}
    state: tuple[str, ...] = ()
    mean: bool = False


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
    ),
}


PRIVACY: Mapping[str, Plugin] = {
    "client-fixed": _flower("DifferentialPrivacyClientSideFixedClipping"),
    "client-adaptive": _flower("DifferentialPrivacyClientSideAdaptiveClipping"),
    "server-fixed": _flower("DifferentialPrivacyServerSideFixedClipping"),
    "server-adaptive": _flower("DifferentialPrivacyServerSideAdaptiveClipping"),
}
"""Central differential privacy: who clips an update (McMahan et al. 2018, arXiv 1710.06963), and whether the norm
follows a quantile of the updates' norms (Andrew et al. 2021, arXiv 1905.03871). The server adds the noise."""

_OPTIONS = {
    "fixed": {"clip": "clipping_norm", "noise": "noise_multiplier"},
    "adaptive": {
        "clip": "initial_clipping_norm",
        "noise": "noise_multiplier",
        "quantile": "target_clipped_quantile",
        "rate": "clip_norm_lr",
        "count-noise": "clipped_count_stddev",
    },
}
_DEFAULTS = {"clip": 1.0, "noise": 0.0}
_CLIPPING_NORM = "privacy/clipping_norm"


def check_strategy(name: str) -> None:
    """Refuse a *name* that :func:`build_strategy` cannot make; imports nothing.

    Raises:
        UnknownNameError: No strategy or no wrapper has this name.
        StrategyOptionError: An option of the wrapper is unknown or no number.
    """
    base, kind, _options = _parsed(name)
    if base not in STRATEGIES:
        raise UnknownNameError("strategy", base, STRATEGIES)
    if kind and kind not in PRIVACY:
        raise UnknownNameError("privacy wrapper", kind, PRIVACY)


def mean_suffices(name: str) -> bool:
    """Tell whether strategy *name* needs no more than partial sums of the updates.

    The privacy wrappers do not: they clip or count update by update.
    """
    base, kind, _options = _parsed(name)
    return STRATEGIES[base].mean and not kind


def build_strategy(name: str, *, clients: int, learning_rate: float, fraction: float = 1.0) -> Any:
    """Make a Flower strategy.

    Args:
        name: A key of :data:`STRATEGIES`; for differential privacy followed by ``+``, a key of :data:`PRIVACY`, and
            options: ``clip`` (norm, or the first one), ``noise`` (multiplier), and for adaptive clipping ``quantile``,
            ``rate`` and ``count-noise``, as in ``fedavg+client-adaptive:clip=0.1,noise=0.3,quantile=0.5``.
        clients: How many clients take part in a round; robust rules derive from it how many they mistrust, privacy
            wrappers how much noise.
        learning_rate: The clients' step size, which some strategies need to know.
        fraction: Share of the nodes that each round samples.

    Raises:
        UnknownNameError: No strategy or no wrapper has this name.
        StrategyOptionError: An option of the wrapper is unknown or out of its range.
        ExtraNotInstalledError: Flower is absent.
        FlowerVersionError: The installed Flower was not tested.
    """
    check_strategy(name)
    base, kind, options = _parsed(name)
    plugins = {known: spec.plugin for known, spec in STRATEGIES.items()}
    strategy_class = load_plugin("strategy", plugins, base)
    adopt_flower()
    settings = STRATEGIES[base].settings(clients, learning_rate)
    # A minimum of 1: who is there is judged before a round, because Flower itself waits without end.
    strategy = strategy_class(
        fraction_train=fraction, min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1, **settings
    )
    if not kind:
        return strategy
    try:
        return load_plugin("privacy wrapper", PRIVACY, kind)(strategy, num_sampled_clients=clients, **options)
    except ValueError as exc:
        raise StrategyOptionError(name, str(exc)) from exc


def _parsed(name: str) -> tuple[str, str, dict[str, float]]:
    """Return the strategy's key, the wrapper's (or nothing), and the wrapper's arguments."""
    base, _plus, privacy = name.partition("+")
    kind, _colon, text = privacy.partition(":")
    if not kind:
        return base, "", {}
    known = _OPTIONS["adaptive" if kind.endswith("adaptive") else "fixed"]
    given = dict(_DEFAULTS)
    for part in filter(None, text.split(",")):
        key, _equals, value = part.partition("=")
        if key not in known:
            raise StrategyOptionError(name, f"an option {key!r} (there are {', '.join(known)})")
        try:
            given[key] = float(value)
        except ValueError:
            raise StrategyOptionError(name, f"{key}={value!r}, which is no number") from None
    return base, kind, {known[key]: value for key, value in given.items()}


def strategy_state(name: str, strategy: Any) -> Arrays:
    """Return what *strategy* carries to the next round as named arrays: ``attribute/key`` -> array."""
    base, kind, _options = _parsed(name)
    arrays: Arrays = {}
    if kind:
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
    base, kind, _options = _parsed(name)
    if kind:
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
