"""How updates become new weights: a table of Flower's own strategies and one of ours, with settings for a first try.

The table says for each strategy which of its attributes carry state from round to round, so that a run can be saved
and resumed, and whether it needs no more than the mean of the updates. The name of one that does not may go on with a
differential-privacy wrapper (``hedgerow.server.privacy``), ``fedavg+client-fixed:clip=1,noise=0.5``; it is part of the
name so that whatever records the strategy of a run records it. Importing this module does not import Flower.

A strategy of a user's own is a class derived from Flower's ``FedAvg``, or a :class:`StrategySpec` of one that carries
state from round to round or needs settings; it is named as ``file.py:attribute``, ``module:attribute``, or by an entry
point of the group ``hedgerow.strategies``.

``FedXgbBagging`` and ``FedXgbCyclic`` are not in the table: their updates are trees, which no task here has. They run
on grids of arbitrary ClientApps.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from hedgerow.errors import HedgerowError, PluginError
from hedgerow.plugins import Plugin, load_plugin, load_user_plugin
from hedgerow.server.errors import StrategyOptionError
from hedgerow.server.flower import adopt_flower, array_record, clipping_keys, is_array_record, numpy_arrays
from hedgerow.server.privacy import PrivacyTerms, parse_privacy
from hedgerow.weights import Arrays

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy

    from hedgerow.server.private_strategy import PrivateMean

__all__ = [
    "STRATEGIES",
    "STRATEGY_GROUP",
    "StrategySpec",
    "build_strategy",
    "check_strategy",
    "mean_suffices",
    "needed_metrics",
    "privacy_terms",
    "restore_state",
    "strategy_state",
]

STRATEGY_GROUP = "hedgerow.strategies"
"""The group of entry points under which distributions offer strategies."""

Settings = Callable[[int, float], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class StrategySpec:
    """What is known of a strategy: an entry of the table, or what a user's own says of itself.

    Attributes:
        made_by: The class, or where it is.
        summary: One line for people.
        settings: (clients, local learning rate) -> arguments of the class.
        state: Attributes that carry state between rounds.
        mean: The mean of the updates, weighted by examples, is all it needs; partial sums may stand for them.
        metrics: Metrics of clients that it computes with -> between what they must lie.
    """

    made_by: "Plugin | Callable[..., Strategy]"
    summary: str = ""
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
# In the name of an array, behind the attribute: it held an ArrayRecord. No attribute has such a character.
_RECORD_MARK = "@record"


def check_strategy(name: str) -> None:
    """Refuse a *name* that :func:`build_strategy` cannot make; imports nothing but a user's own.

    Raises:
        UnknownNameError: No strategy or no wrapper has this name.
        PluginError: A user's own cannot be used.
        StrategyOptionError: An option of the wrapper is unknown or no number, or the strategy cannot be wrapped.
    """
    _parsed(name)


def mean_suffices(name: str) -> bool:
    """Tell whether strategy *name* needs no more than partial sums of the updates.

    The privacy wrappers do not: they clip or count update by update.
    """
    _base, spec, terms = _parsed(name)
    return spec.mean and terms is None


def needed_metrics(name: str) -> Mapping[str, tuple[float, float]]:
    """Return the metrics of clients that strategy *name* computes with -> between what they must lie."""
    _base, spec, terms = _parsed(name)
    counts_clipped = terms is not None and terms.by_client and terms.adaptive
    return {**spec.metrics, **({clipping_keys()[1]: (0, 1)} if counts_clipped else {})}


def privacy_terms(name: str) -> PrivacyTerms | None:
    """Return what strategy *name* promises, or None if it promises nothing."""
    return _parsed(name)[2]


def build_strategy(name: str, *, clients: int, learning_rate: float, fraction: float = 1.0) -> "Strategy":
    """Make a Flower strategy.

    Args:
        name: A key of :data:`STRATEGIES`, or the name of a user's own; for differential privacy followed by ``+``, a
            key of ``hedgerow.server.privacy.PRIVACY``, and options: ``clip`` (norm, or the first one), ``noise``
            (multiplier), ``delta``, and for adaptive clipping ``quantile``, ``rate`` and ``count-noise``, as in
            ``fedavg+client-adaptive:clip=0.1,noise=0.3,quantile=0.5`` (``hedgerow.server.privacy.PrivacyTerms``).
        clients: How many clients take part in a round; robust rules derive from it how many they mistrust, adaptive
            clipping its noise on a count.
        learning_rate: The clients' step size, which some strategies need to know.
        fraction: Share of the nodes that each round samples.

    Raises:
        UnknownNameError: No strategy or no wrapper has this name.
        PluginError: A user's own cannot be used.
        StrategyOptionError: An option of the wrapper is unknown or out of its range.
        ExtraNotInstalledError: Flower is absent.
        FlowerVersionError: The installed Flower was not tested.
    """
    base, spec, terms = _parsed(name, clients)
    made: Callable[..., Strategy]
    made = load_plugin("strategy", {base: spec.made_by}, base) if isinstance(spec.made_by, Plugin) else spec.made_by
    adopt_flower()
    # A minimum of 1: who is there is judged before a round, because Flower itself waits without end.
    settings = {
        "fraction_train": fraction,
        "min_train_nodes": 1,
        "min_evaluate_nodes": 1,
        "min_available_nodes": 1,
        **spec.settings(clients, learning_rate),
    }
    strategy = made(**settings) if base in STRATEGIES else _users_own(base, spec, made, settings)
    if terms is None:
        return strategy
    private: Strategy = load_plugin("privacy wrapper", {terms.kind: _WRAPPER}, terms.kind)(strategy, terms, clients)
    return private


def _users_own(
    name: str, spec: StrategySpec, made: "Callable[..., Strategy]", settings: Mapping[str, Any]
) -> "Strategy":
    """Make a user's own strategy and see that it is one.

    Raises:
        PluginError: It cannot be made, or lacks what its record names.
    """
    from flwr.serverapp.strategy import Strategy

    from hedgerow.server.own_strategy import judge_rounds

    try:
        strategy: object = made(**settings)
    # The user's code may raise anything; the report must name it all the same.
    except (Exception, SystemExit) as exc:
        raised = " ".join(f"{type(exc).__name__}: {exc}".split())
        # One of ours says already what to do.
        ours = isinstance(exc, HedgerowError)
        advice = "" if ours else f"; let it take {', '.join(settings)}, as FedAvg does, or correct it"
        raise PluginError("strategy", name, f"making it raised {raised}{advice}") from exc
    if not isinstance(strategy, Strategy):
        found = f"expected a flwr.serverapp.strategy.Strategy, found {type(strategy).__name__}; derive it from FedAvg"
        raise PluginError("strategy", name, found)
    absent = [attribute for attribute in spec.state if not hasattr(strategy, attribute)]
    if absent:
        raise PluginError("strategy", name, f"expected the attribute {absent[0]}, found none; correct its state")
    judge_rounds(strategy, name)
    return strategy


def _spec(base: str) -> StrategySpec:
    return STRATEGIES[base] if base in STRATEGIES else _users_spec(base)


@cache
def _users_spec(name: str) -> StrategySpec:
    """Import a user's own strategy: a :class:`StrategySpec`, or a class of strategies without more to say.

    Raises:
        UnknownNameError: No distribution offers it, and it is no reference.
        PluginError: It cannot be imported, or is neither.
    """
    found = load_user_plugin("strategy", name, group=STRATEGY_GROUP, known=STRATEGIES, reserved="+")
    if isinstance(found, StrategySpec):
        return found
    if isinstance(found, type):
        from flwr.serverapp.strategy import Strategy

        if issubclass(found, Strategy):
            return StrategySpec(found, (found.__doc__ or name).partition("\n")[0])
    what = found.__name__ if isinstance(found, type) else type(found).__name__
    raise PluginError(
        "strategy", name, f"expected a class derived from FedAvg or a StrategySpec, found {what}; name another"
    )


def _parsed(name: str, clients: int | None = None) -> tuple[str, StrategySpec, PrivacyTerms | None]:
    """Return the strategy's name and record, and the terms of the wrapper if there is one."""
    # The folders of a user's own file may have a plus in their names.
    folders, separator, rest = name.rpartition(".py:")
    base, plus, privacy = rest.partition("+")
    base = f"{folders}{separator}{base}"
    spec = _spec(base)
    if not plus:
        return base, spec, None
    kind, _colon, text = privacy.partition(":")
    terms = parse_privacy(name, kind, text, clients=clients)
    if not spec.mean and base not in STRATEGIES:
        raise StrategyOptionError(
            name,
            f"{base}, which does not say that it averages",
            "if the mean of the updates, weighted by examples, is all it needs, name a StrategySpec of it with "
            "mean=True",
        )
    if not spec.mean:
        averaging = ", ".join(known for known, other in STRATEGIES.items() if other.mean)
        raise StrategyOptionError(
            name, f"{base}, in which one client can count for more than its share (these average: {averaging})"
        )
    return base, spec, terms


def strategy_state(name: str, strategy: "Strategy") -> Arrays:
    """Return what *strategy* carries to the next round as named arrays.

    Returns:
        ``attribute/key`` -> array of a mapping, ``attribute@record/key`` -> array of a Flower ``ArrayRecord``, and
        ``attribute/#000000`` and so on -> array of a list.

    Raises:
        PluginError: An attribute of a user's own holds no arrays.
    """
    base, spec, _terms = _parsed(name)
    arrays: Arrays = {}
    wrapper = _wrapper(strategy)
    if wrapper is not None:
        arrays[_CLIPPING_NORM] = np.asarray(wrapper.clipping_norm, np.float64)
        strategy = wrapper.strategy
    for attribute in spec.state:
        value = getattr(strategy, attribute)
        if value is None:
            continue
        items = numpy_arrays(value) if is_array_record(value) else value
        if not isinstance(items, Iterable):
            raise _no_arrays(base, attribute, value)
        pairs = items.items() if isinstance(items, Mapping) else ((f"#{i:06d}", item) for i, item in enumerate(items))
        mark = _RECORD_MARK if is_array_record(value) else ""
        try:
            held = {f"{attribute}{mark}/{key}": np.asarray(array) for key, array in pairs}
        except (TypeError, ValueError) as exc:
            raise _no_arrays(base, attribute, value) from exc
        if any(array.dtype.kind not in "fiub" for array in held.values()):
            raise _no_arrays(base, attribute, value)
        arrays.update(held)
    return arrays


def _no_arrays(name: str, attribute: str, found: object) -> PluginError:
    said = f"expected arrays in its attribute {attribute}, found {type(found).__name__}; correct it or its state"
    return PluginError("strategy", name, said)


def restore_state(name: str, strategy: "Strategy", arrays: Arrays) -> None:
    """Give a new *strategy* the state that :func:`strategy_state` returned."""
    _base, spec, _terms = _parsed(name)
    wrapper = _wrapper(strategy)
    if wrapper is not None:
        if _CLIPPING_NORM in arrays:
            wrapper.clipping_norm = float(arrays[_CLIPPING_NORM])
        strategy = wrapper.strategy
    for attribute in spec.state:
        recorded, plain = _held(arrays, f"{attribute}{_RECORD_MARK}/"), _held(arrays, f"{attribute}/")
        # Runs of before there was a mark hold an ArrayRecord under this one name.
        if recorded or (plain and attribute == "current_arrays"):
            setattr(strategy, attribute, array_record(recorded or plain))
        elif plain:
            is_list = all(key.startswith("#") for key in plain)
            setattr(strategy, attribute, list(plain.values()) if is_list else plain)


def _held(arrays: Arrays, prefix: str) -> Arrays:
    return {key.removeprefix(prefix): arrays[key] for key in sorted(arrays) if key.startswith(prefix)}


def _wrapper(strategy: "Strategy") -> "PrivateMean | None":
    from hedgerow.server.private_strategy import PrivateMean

    return strategy if isinstance(strategy, PrivateMean) else None
