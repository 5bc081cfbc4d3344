"""The report of a build: a model card for people, as HTML and as Markdown, and everything as JSON.

``report.html`` and ``report.md`` are functions of the outcome alone: the same outcome gives the same bytes. They hold
no script and load nothing. ``compile.json`` is what ``hedgerow compile --json`` prints. What differs from run to run
(the latency on this machine, the seconds) is in these three files and never in ``build.json``.
"""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from hedgerow.compile.build import Build
from hedgerow.compile.outcome import Outcome
from hedgerow.compile.pareto_plot import Point, draw_plot
from hedgerow.compile.search import PASSED, TriedRecipe, pareto_front
from hedgerow.durable import write_durably
from hedgerow.errors import ExtraNotInstalledError

__all__ = ["HTML_FILE", "JSON_FILE", "MARKDOWN_FILE", "card", "render", "write_report"]

HTML_FILE, MARKDOWN_FILE, JSON_FILE = "report.html", "report.md", "compile.json"
_MAXIMUM_CONFUSION = 20


def write_report(folder: Path, outcome: Outcome, evaluation: Mapping[str, Any], *, max_drop: float) -> None:
    """Write the report of *outcome* beside its build.

    Args:
        folder: The build's.
        outcome: With a build.
        evaluation: Of the float model, see :mod:`hedgerow.compile.evaluation`.
        max_drop: The budget, as a share.

    Raises:
        ExtraNotInstalledError: jinja2 is absent.
        OSError: The folder cannot be written.
    """
    facts = card(outcome, evaluation, max_drop=max_drop)
    write_durably(folder / HTML_FILE, render("report.html.j2", facts).encode())
    write_durably(folder / MARKDOWN_FILE, render("report.md.j2", facts).encode())
    write_durably(folder / JSON_FILE, (json.dumps(outcome.to_record(), indent=1, sort_keys=True) + "\n").encode())


def card(outcome: Outcome, evaluation: Mapping[str, Any], *, max_drop: float) -> dict[str, Any]:
    """Return what the templates show, as plain values in the order in which they are shown.

    Raises:
        ValueError: The outcome has no build.
    """
    build = outcome.build
    if build is None:
        raise ValueError("an outcome without a build has nothing to report")
    record = outcome.to_record()
    # A file that gives the class itself has classes and no scores for a schema to label.
    labels = build.model_schema.labels or tuple(row["name"] for row in evaluation["classes"])
    not_run = [
        (name, artifact.target, outcome.not_run.get(artifact.target, {}).get(name, "the reason is not known"))
        for artifact in build.artifacts
        for name, state in artifact.checks.items()
        if state != PASSED
    ]
    names = {trial.target for trial in outcome.trials}
    front = {(trial.target, trial.recipe) for name in names for trial in pareto_front(_of(outcome.trials, name))}
    return {
        "task": build.task,
        "use": _intended_use(build, labels),
        "lineage": {
            "run": build.run,
            "parent": build.parent or "none",
            "checkpoint_sha256": build.checkpoint_sha256,
            "data_fingerprint": build.data_fingerprint,
        },
        "inputs": [
            {
                "name": spec.name,
                "shape": " x ".join(map(str, spec.shape)),
                "dtype": spec.dtype,
                "unit": spec.unit_text or "-",
            }
            for spec in build.model_schema.inputs
        ],
        "labels": labels,
        "metrics": sorted(build.metrics.items()),
        "samples": evaluation["samples"],
        "train_samples": evaluation["train_samples"],
        "classes": evaluation["classes"],
        "confusion": evaluation["confusion"] if len(evaluation["confusion"]) <= _MAXIMUM_CONFUSION else [],
        "heat": _heat(evaluation["confusion"]),
        "plots": _plots(outcome, record["artifacts"], front, max_drop),
        "subgroups": evaluation["subgroups"],
        "fairness": evaluation["fairness"],
        "max_drop_points": max_drop * 100,
        "artifacts": [_with_limits(artifact) for artifact in record["artifacts"]],
        "files": (files := _files(record["artifacts"])),
        "class_rows": _compared("recall", "classes", evaluation, files),
        "subgroup_rows": _compared("accuracy", "subgroups", evaluation, files),
        "train_graphs": record["train_graphs"],
        "refused": record["refused"],
        "trials": [
            _trial(trial, chosen=outcome.recipes, front=(trial.target, trial.recipe) in front)
            for trial in outcome.trials
        ],
        "executed_by": [
            (", ".join(name for name, ran in checks.items() if ran == runtime), target, runtime)
            for target, checks in sorted(outcome.executed_by.items())
            for runtime in dict.fromkeys(checks.values())
        ],
        "not_run": sorted(not_run),
        "not_run_reasons": _by_reason(not_run),
    }


def _by_reason(not_run: Sequence[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """Return each reason once, with its checks and the targets that have it."""
    found: dict[str, dict[str, Any]] = {}
    for name, target, reason in sorted(not_run):
        entry = found.setdefault(reason, {"reason": reason, "checks": [], "targets": []})
        entry["checks"] += [name] if name not in entry["checks"] else []
        entry["targets"] += [target] if target not in entry["targets"] else []
    return list(found.values())


def _heat(confusion: Sequence[Sequence[int]]) -> list[list[float]]:
    """Return each cell's share of the samples of its label."""
    return [[count / sum(row) if sum(row) else 0.0 for count in row] for row in confusion]


def _plots(
    outcome: Outcome, artifacts: Sequence[Mapping[str, Any]], front: set[tuple[str, str]], max_drop: float
) -> list[dict[str, str]]:
    """Return a plot of all artifacts, and one of each target of which several recipes were measured."""
    floats = [a["float_accuracy"] for a in artifacts if a["float_accuracy"] is not None]
    if not floats:
        return []
    levels = (floats[0], max(0.0, floats[0] - max_drop))
    measured = [artifact for artifact in artifacts if artifact["accuracy"] is not None]
    points = [
        _point(label, artifact["target"], artifact, kind="chosen", front=False)
        for artifact, label in zip(measured, _shared_labels(measured), strict=True)
    ]
    found = [{"title": "All artifacts", "svg": draw_plot("All artifacts", points, *levels)}] if points else []
    for target in dict.fromkeys(trial.target for trial in outcome.trials):
        points = [
            _point(
                trial.recipe if outcome.recipes.get(target) == trial.recipe else "",
                trial.recipe,
                trial.metrics,
                kind="chosen" if outcome.recipes.get(target) == trial.recipe else trial.state,
                front=(target, trial.recipe) in front,
            )
            for trial in _of(outcome.trials, target)
            if {"bytes", "accuracy"} <= trial.metrics.keys()
        ]
        if len(points) > 1:
            found.append({"title": target, "svg": draw_plot(f"Recipes tried for {target}", points, *levels)})
    return found


def _shared_labels(artifacts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the target of each artifact; of those in one place the first one's and how many more there are."""
    places = [(artifact["bytes"], artifact["accuracy"]) for artifact in artifacts]
    more = [f" +{places.count(place) - 1}" if places.count(place) > 1 else "" for place in places]
    return [
        f"{artifact['target']}{more[at]}" if places.index(places[at]) == at else ""
        for at, artifact in enumerate(artifacts)
    ]


def _point(label: str, name: str, metrics: Mapping[str, Any], *, kind: str, front: bool) -> Point:
    latency_ms = metrics.get("target_latency_ms")
    told = f", {latency_ms:.3g} ms by the target's model" if latency_ms is not None else ""
    return Point(
        label=label,
        about=f"{name}: {int(metrics['bytes']):,} bytes, accuracy {metrics['accuracy']:.2%}{told} ({kind})",
        size_bytes=metrics["bytes"],
        accuracy=metrics["accuracy"],
        latency_ms=latency_ms,
        kind=kind,
        front=front,
    )


def _of(trials: Sequence[TriedRecipe], target: str) -> list[TriedRecipe]:
    return [trial for trial in trials if trial.target == target]


def _intended_use(build: Build, labels: Sequence[str]) -> str:
    inputs = ", ".join(spec.name for spec in build.model_schema.inputs)
    count = len(labels)
    return (
        f"To tell {count} classes apart from {inputs}, on the hardware below, for inputs like those of the training "
        "data. The reference in the release is what devices compare their inputs with; an alert of drift means that "
        "this report no longer describes what the model does."
    )


def _files(artifacts: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return one artifact for each file and each runtime that it was evaluated in: targets of one recipe share it.

    Where one recipe was evaluated in several, its name has the target beside it.
    """
    found = {_evaluated(artifact): artifact for artifact in reversed(artifacts) if artifact["classes"]}
    files = [artifact for artifact in artifacts if found.get(_evaluated(artifact)) is artifact]
    recipes = [artifact["recipe"] for artifact in files]
    return [
        {**file, "recipe": f"{file['recipe']} for {file['target']}"} if recipes.count(file["recipe"]) > 1 else file
        for file in files
    ]


def _evaluated(artifact: Mapping[str, Any]) -> tuple[str, str]:
    return artifact["sha256"], artifact["executed_by"].get("accuracy", "")


def _compared(
    metric: str, kind: str, evaluation: Mapping[str, Any], artifacts: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return one row for each class or subgroup: the float model's metric, and that of each artifact."""
    return [
        {"name": row["name"], "values": [row[metric], *(artifact[kind][place][metric] for artifact in artifacts)]}
        for place, row in enumerate(evaluation[kind])
        if artifacts
    ]


def _with_limits(artifact: Mapping[str, Any]) -> dict[str, Any]:
    factor = artifact.get("target_error_factor")
    modelled = artifact.get("target_latency_ms")
    between = (modelled / factor, modelled * factor) if modelled is not None and factor else None
    return {**artifact, "latency_between_ms": between}


def _trial(trial: TriedRecipe, *, chosen: Mapping[str, str], front: bool) -> dict[str, Any]:
    record = trial.to_record()
    return {**record, "chosen": chosen.get(trial.target) == trial.recipe and trial.state == PASSED, "front": front}


def render(template: str, facts: Mapping[str, Any]) -> str:
    """Fill in one of the templates.

    Raises:
        ExtraNotInstalledError: jinja2 is absent.
    """
    try:
        from jinja2 import DictLoader, Environment, StrictUndefined
    except ModuleNotFoundError as exc:
        raise ExtraNotInstalledError("the report of a build", "compile", exc.name) from exc
    text = (files("hedgerow.compile") / "templates" / template).read_text("utf-8")
    html = template.endswith(".html.j2")
    environment = Environment(
        loader=DictLoader({template: text}),
        undefined=StrictUndefined,
        autoescape=html,  # noqa: S701 - Markdown has another escape, the filter cell
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": _percent, "bytes": _bytes, "number": _number}
    if not html:
        environment.filters["cell"] = _cell
    return environment.get_template(template).render(facts)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def _bytes(size: float | None) -> str:
    return "-" if size is None else f"{int(size):,}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _cell(text: object) -> str:
    """Return text that stays inside one cell of a Markdown table and is no markup."""
    plain = " ".join(str(text).split())
    return "".join(f"\\{sign}" if sign in "\\`*_{}[]<>|#" else sign for sign in plain)
