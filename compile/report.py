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
from hedgerow.compile.scoring import score_in
from hedgerow.compile.search import PASSED, TriedRecipe, pareto_front
from hedgerow.durable import write_durably
from hedgerow.errors import ExtraNotInstalledError
from hedgerow.model_schema import ModelSchema
from hedgerow.outputs import Outputs

__all__ = ["HTML_FILE", "JSON_FILE", "MARKDOWN_FILE", "card", "render", "write_report"]

HTML_FILE, MARKDOWN_FILE, JSON_FILE = "report.html", "report.md", "compile.json"
_MAXIMUM_CONFUSION = 20
_MOST_NAMES = 20


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
    answers, is_accuracy = build.model_schema.answers, outcome.score_key == "accuracy"
    named = answers.alone.part_names if answers.alone is not None and is_accuracy else ()
    # A file that gives the class itself has classes and no scores for a schema to label.
    labels = named or tuple(row["name"] for row in evaluation["classes"])
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
        "score_name": outcome.score_name,
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
        "outputs": [] if is_accuracy else _outputs(build.model_schema),
        "metrics": sorted(build.metrics.items()) if is_accuracy else _metrics(build.metrics, evaluation),
        "baseline": _baseline(outcome.score_key, evaluation),
        "last_value": evaluation.get("last_value"),
        "samples": evaluation["samples"],
        "train_samples": evaluation["train_samples"],
        "classes": evaluation["classes"],
        "confusion": evaluation["confusion"] if len(evaluation["confusion"]) <= _MAXIMUM_CONFUSION else [],
        "heat": _heat(evaluation["confusion"]),
        "plots": _plots(outcome, record["artifacts"], front, max_drop),
        "subgroups": [{**row, "score": row[outcome.score_key]} for row in evaluation["subgroups"]],
        "fairness": evaluation["fairness"],
        "max_drop_points": max_drop * 100,
        "artifacts": [{**_with_limits(artifact), "score": score_in(artifact)} for artifact in record["artifacts"]],
        "output_rows": _output_rows(answers, record["artifacts"]),
        "files": (files := _files(record["artifacts"])),
        "class_rows": _compared("recall", "classes", evaluation, files),
        "subgroup_rows": _compared(outcome.score_key, "subgroups", evaluation, files),
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
    name = outcome.score_name
    floats = [score for a in artifacts if (score := score_in(a, "float_")) is not None]
    if not floats:
        return []
    levels = (floats[0], max(0.0, floats[0] - max_drop))
    measured = [artifact for artifact in artifacts if score_in(artifact) is not None]
    points = [
        _point(label, artifact["target"], artifact, name, kind="chosen", front=False)
        for artifact, label in zip(measured, _shared_labels(measured), strict=True)
    ]
    everything = "All artifacts"
    found = [{"title": everything, "svg": draw_plot(everything, points, *levels, score_name=name)}] if points else []
    for target in dict.fromkeys(trial.target for trial in outcome.trials):
        points = [
            _point(
                trial.recipe if outcome.recipes.get(target) == trial.recipe else "",
                trial.recipe,
                trial.metrics,
                name,
                kind="chosen" if outcome.recipes.get(target) == trial.recipe else trial.state,
                front=(target, trial.recipe) in front,
            )
            for trial in _of(outcome.trials, target)
            if "bytes" in trial.metrics and score_in(trial.metrics) is not None
        ]
        if len(points) > 1:
            title = f"Recipes tried for {target}"
            found.append({"title": target, "svg": draw_plot(title, points, *levels, score_name=name)})
    return found


def _shared_labels(artifacts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the target of each artifact; of those in one place the first one's and how many more there are."""
    places = [(artifact["bytes"], score_in(artifact)) for artifact in artifacts]
    more = [f" +{places.count(place) - 1}" if places.count(place) > 1 else "" for place in places]
    return [
        f"{artifact['target']}{more[at]}" if places.index(places[at]) == at else ""
        for at, artifact in enumerate(artifacts)
    ]


def _point(label: str, name: str, metrics: Mapping[str, Any], score_name: str, *, kind: str, front: bool) -> Point:
    score = score_in(metrics) or 0.0
    latency_ms = metrics.get("target_latency_ms")
    told = f", {latency_ms:.3g} ms by the target's model" if latency_ms is not None else ""
    return Point(
        label=label,
        about=f"{name}: {int(metrics['bytes']):,} bytes, {score_name} {score:.2%}{told} ({kind})",
        size_bytes=metrics["bytes"],
        score=score,
        latency_ms=latency_ms,
        kind=kind,
        front=front,
    )


def _of(trials: Sequence[TriedRecipe], target: str) -> list[TriedRecipe]:
    return [trial for trial in trials if trial.target == target]


def _outputs(schema: ModelSchema) -> list[dict[str, str]]:
    """Return a row for each output that is an answer."""
    specs = {spec.name: spec for spec in schema.outputs}
    return [
        {
            "name": name,
            "kind": output.kind,
            "shape": " x ".join(map(str, output.tensor(name).shape)),
            "unit": specs[name].unit_text or "-",
            "names": ", ".join(
                (*output.part_names[:_MOST_NAMES], *("..." for _ in output.part_names[_MOST_NAMES:][:1]))
            ),
        }
        for name, output in schema.answers.items()
    ]


def _metrics(metrics: Mapping[str, float], evaluation: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return the mean score, what each kind of output has beside it, and the user's own metrics."""
    return list({**evaluation["metrics"], **metrics}.items())


def _baseline(score_key: str, evaluation: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what looks at nothing, and its score."""
    found = evaluation.get("baseline")
    if found is None or score_key not in found["metrics"]:
        return None
    return {"said": found["said"], "score": found["metrics"][score_key]}


def _output_rows(answers: Outputs, artifacts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return how near each of several outputs of each artifact is to the float model's."""
    return [
        {
            "target": artifact["target"],
            "output": name,
            "snr_db": artifact.get(f"snr_db.{name}"),
            "agreement": artifact.get(f"agreement.{name}"),
        }
        for artifact in artifacts
        for name in (answers if len(answers) > 1 else ())
    ]


def _intended_use(build: Build, labels: Sequence[str]) -> str:
    inputs = ", ".join(spec.name for spec in build.model_schema.inputs)
    answers = build.model_schema.answers
    purpose = f"To tell {len(labels)} classes apart from {inputs}"
    if answers and answers.score_key != "accuracy":
        purpose = f"To give {' and '.join(f'{name} ({output.kind})' for name, output in answers.items())} from {inputs}"
    return (
        f"{purpose}, on the hardware below, for inputs like those of the training "
        "data. The reference in the release is what devices compare their inputs with; an alert of drift means that "
        "this report no longer describes what the model does."
    )


def _files(artifacts: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return one artifact for each file and each runtime that it was evaluated in: targets of one recipe share it.

    Where one recipe was evaluated in several, its name has the target beside it.
    """
    found = {
        _evaluated(artifact): artifact
        for artifact in reversed(artifacts)
        if artifact["classes"] or artifact["subgroups"]
    }
    files = [artifact for artifact in artifacts if found.get(_evaluated(artifact)) is artifact]
    recipes = [artifact["recipe"] for artifact in files]
    return [
        {**file, "recipe": f"{file['recipe']} for {file['target']}"} if recipes.count(file["recipe"]) > 1 else file
        for file in files
    ]


def _evaluated(artifact: Mapping[str, Any]) -> tuple[str, str]:
    return artifact["sha256"], next(iter(artifact["executed_by"].values()), "")


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
    record = {**record, "score": score_in(trial.metrics)}
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
