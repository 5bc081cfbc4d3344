import itertools
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from hedgerow.compile.errors import (
    DiskError,
    PassError,
    TimeLimitError,
    UnsuitableError,
    UntranslatableError,
    VerificationError,
    WorkerError,
)
from hedgerow.compile.refused import refused_by
from hedgerow.compile.report import card, render, write_report
from hedgerow.compile.search import TriedRecipe
from hedgerow.model_schema import ModelSchema
from hedgerow.outputs import Classes, Outputs, Values
from tests.compile.outcomes import EVALUATION, METRICS, outcome


class Page(HTMLParser):
    """Collects tags and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data) -> None:
        self.text += data


def test_the_record_is_the_json_of_the_command():
    record = outcome().to_record()
    (artifact,) = record["artifacts"]
    assert set(artifact) >= {
        "target", "format", "recipe", "bytes", "float_bytes", "accuracy", "float_accuracy", "snr_db", "agreement",
        "peak_memory_bytes", "latency_ms_p50", "checks", "sha256",
    }  # fmt: skip
    assert isinstance(artifact["bytes"], int)
    assert (artifact["latency_ms_p50"], artifact["latency_ms_p99"]) == (0.5, 0.9)
    assert record["refused"] == [
        {
            "target": "cortex-m4",
            "recipe": "tflite-int8-full",
            "check": "memory",
            "reason": "too | large",
            "further": "refused, too: tflite-pruned-int8-full (memory)",
        }
    ]
    assert len(record["trials"]) == 2
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_what_was_not_measured_is_null_and_not_absent():
    (artifact,) = outcome(latencies={}).to_record()["artifacts"]
    assert artifact["latency_ms_p50"] is None


def test_the_page_escapes_names_and_holds_no_script():
    page = Page(render("report.html.j2", card(outcome(), EVALUATION, max_drop=0.015)))
    assert "<b>no</b>" in page.text
    assert not {"b", "script", "img", "link", "iframe"} & {tag for tag, _attributes in page.tags}
    assert not any(name.startswith("on") or name in {"src", "href"} for _tag, found in page.tags for name in found)
    for words in (
        "cortex-m4: too | large",
        "0.667 to 6",
        "run-0",
        "refused, too: tflite-pruned-int8-full (memory)",
        "0.5 / 0.9",
        "50.00%",
    ):
        assert words in page.text
    assert "runs on device was not run: there is no such runtime" in page.text
    assert "25.00%" in page.text


@pytest.mark.parametrize("template", ["report.html.j2", "report.md.j2"])
def test_the_card_says_what_was_refused_before_the_artifact_passed(template):
    before = TriedRecipe(
        target="raspberry-pi-4", recipe="onnx-int8-u8s8-reduced", state="refused", check="accuracy", reason="too coarse"
    )
    facts = outcome(instead_of={"raspberry-pi-4": (before,)})
    (artifact,) = facts.to_record()["artifacts"]
    assert artifact["instead_of"] == [before.to_record()]
    text = render(template, card(facts, EVALUATION, max_drop=0.015))
    assert "raspberry-pi-4: onnx-int8-s8s8 instead of onnx-int8-u8s8-reduced, which was refused: too coarse." in text


def test_the_markdown_escapes_cells_and_keeps_its_tables_straight():
    text = render("report.md.j2", card(outcome(), EVALUATION, max_drop=0.015))
    assert "\\<b\\>no\\</b\\>" in text
    assert "yes\\|" in text
    lines = text.splitlines()
    for above, rule in itertools.pairwise(lines):
        if rule.startswith("|--"):
            below = lines[lines.index(rule, lines.index(above)) + 1]
            columns = [line.replace("\\|", "").count("|") for line in (above, rule, below)]
            assert len(set(columns)) == 1, (above, below)


def test_one_file_that_two_runtimes_evaluated_is_shown_for_each_with_its_target():
    one = outcome()
    (artifact,) = one.build.artifacts
    names = ("android-npu", "cortex-m4", "cortex-m7")
    build = replace(one.build, artifacts=tuple(replace(artifact, target=name) for name in names))
    shares = dict(zip(names, (0.25, 0.75, 0.75), strict=True))
    evaluations = {
        name: {"classes": [{**row, "recall": share} for row in EVALUATION["classes"]], "subgroups": []}
        for name, share in shares.items()
    }
    ran = {name: {"accuracy": "LiteRT 2" if name == "android-npu" else "TFLM 1"} for name in names}
    recipes = dict.fromkeys(names, "tflite-int8-full")
    changed = outcome(build=build, recipes=recipes, evaluations=evaluations, executed_by=ran, latencies={}, not_run={})
    facts = card(changed, {**EVALUATION, "subgroups": []}, max_drop=0.015)
    assert [file["recipe"] for file in facts["files"]] == [
        "tflite-int8-full for android-npu", "tflite-int8-full for cortex-m4",
    ]  # fmt: skip
    assert facts["class_rows"][0]["values"] == [0.5, 0.25, 0.75]


def test_an_artifact_is_shown_beside_the_float_model_for_each_class_and_subgroup():
    facts = card(outcome(), EVALUATION, max_drop=0.015)
    assert [row["values"] for row in facts["class_rows"]] == [[0.5, 0.25], [None, None]]
    assert facts["subgroup_rows"] == [{"name": "left", "values": [0.5, 0.75]}]
    text = render("report.md.j2", facts)
    assert "| recall of each class | float | onnx-int8-s8s8 |" in text
    assert "| left | 50.00% | 75.00% |" in text
    assert card(outcome(evaluations={}), EVALUATION, max_drop=0.015)["class_rows"] == []


def test_the_record_says_why_a_check_was_not_run_and_how_each_class_fares():
    (artifact,) = outcome().to_record()["artifacts"]
    assert artifact["not_run"] == {"runs on device": "there is no such runtime"}
    assert [row["recall"] for row in artifact["classes"]] == [0.25, None]
    (artifact,) = outcome(evaluations={}, not_run={}).to_record()["artifacts"]
    assert (artifact["not_run"], artifact["classes"], artifact["subgroups"]) == ({}, [], [])


def test_the_same_outcome_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_report(tmp_path / name, outcome(), EVALUATION, max_drop=0.01)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["compile.json", "report.html", "report.md"]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)


def test_a_model_without_classes_tables_or_subgroups_has_a_report_too():
    empty = EVALUATION | {"classes": [], "confusion": [], "subgroups": [], "fairness": {}}
    for template in ("report.html.j2", "report.md.j2"):
        assert "names no subgroup" in render(template, card(outcome(refused=()), empty, max_drop=0.015))


def test_nothing_to_report_is_a_bug_of_the_caller():
    with pytest.raises(ValueError, match="nothing to report"):
        card(outcome(build=None), EVALUATION, max_drop=0.015)


@pytest.mark.parametrize(
    ("error", "check"),
    [
        (VerificationError("x", "memory", "a", "b"), "memory"),
        (PassError("export-onnx", "a"), "pass"),
        (UntranslatableError(("aten.x",)), "operators"),
        (WorkerError("x", -9, ""), "process"),
        (TimeLimitError("x", 600.0, "export-onnx"), "time"),
        (DiskError("No space left on device"), "disk"),
        (UnsuitableError("distill-logits", "a", "b", "c"), "task"),
    ],
)
def test_an_error_is_refused_by_a_check(error, check):
    assert refused_by(error) == check


def test_what_was_not_run_stands_first_on_the_page_and_apart_from_what_passed():
    page = render("report.html.j2", card(outcome(), EVALUATION, max_drop=0.015))
    callout = '<span class="not-run">Not run: runs on device</span>, for raspberry-pi-4: there is no such runtime.'
    assert page.index(callout) < page.index("<h2>Intended use")
    assert '<span class="not-run">runs on device: not run</span>' in page
    assert "<summary>1 passed</summary>accuracy</details>" in page
    nothing = outcome(refused=(), not_run={})
    whole = replace(nothing.build.artifacts[0], checks={"accuracy": "passed"})
    page = render(
        "report.html.j2",
        card(replace(nothing, build=replace(nothing.build, artifacts=(whole,))), EVALUATION, max_drop=0.015),
    )
    assert "callout" not in page.split("</style>")[1]


def test_checks_that_were_not_run_for_one_reason_are_said_once():
    facts = card(outcome(not_run={"raspberry-pi-4": {"runs on device": "none here"}}), EVALUATION, max_drop=0.015)
    assert facts["not_run_reasons"] == [
        {"reason": "none here", "checks": ["runs on device"], "targets": ["raspberry-pi-4"]}
    ]


def test_the_heat_of_the_confusion_is_the_share_of_each_labels_samples():
    facts = card(outcome(), EVALUATION | {"confusion": [[3, 1], [0, 0]]}, max_drop=0.015)
    assert facts["heat"] == [[0.75, 0.25], [0.0, 0.0]]
    assert 'rgba(var(--heat), 0.45)">3</td>' in render("report.html.j2", facts)


def test_artifacts_are_plotted_together_and_each_target_with_several_measured_recipes():
    def tried(recipe, state, size, accuracy):
        metrics = METRICS | {"bytes": size, "accuracy": accuracy}
        return TriedRecipe(target="raspberry-pi-4", recipe=recipe, state=state, metrics=metrics)

    trials = (
        tried("onnx-int8-s8s8", "passed", 100.0, 0.9),
        tried("onnx-float", "passed", 400.0, 0.91),
        tried("onnx-int4-weights", "refused", 60.0, 0.5),
    )
    plots = card(outcome(trials=trials), EVALUATION, max_drop=0.015)["plots"]
    assert [plot["title"] for plot in plots] == ["All artifacts", "raspberry-pi-4"]
    assert plots[1]["svg"].count("<circle") == 3
    assert "onnx-int4-weights: 60 bytes, accuracy 50.00%, 2 ms by the target&#x27;s model (refused)" in plots[1]["svg"]
    assert [plot["title"] for plot in card(outcome(), EVALUATION, max_drop=0.015)["plots"]] == ["All artifacts"]
    unknown = {name: value for name, value in METRICS.items() if name not in {"accuracy", "float_accuracy"}}
    build = outcome().build
    nothing = replace(build, artifacts=(replace(build.artifacts[0], metrics=unknown),))
    assert card(outcome(build=nothing), EVALUATION, max_drop=0.015)["plots"] == []


def test_every_cell_of_a_table_that_becomes_cards_on_a_phone_says_what_it_is():
    page = render("report.html.j2", card(outcome(), EVALUATION, max_drop=0.015))
    tables = re.findall(r'<table class="dense cards">(.*?)</table>', page, re.DOTALL)
    assert len(tables) == 3
    for table in tables:
        head, *rows = re.findall(r"<tr.*?</tr>", table, re.DOTALL)
        names = [name.replace("&shy;", "") for name in re.findall(r"<th[^>]*>(.*?)</th>", head)]
        for row in rows:
            assert re.findall(r'data-label="([^"]*)"', row) == names


def test_the_card_says_what_each_check_was_measured_in():
    ran = {"accuracy": "LiteRT 2.3.0, XNNPACK delegate", "golden": "LiteRT 2.3.0, XNNPACK delegate", "oracle": "TFLM 1"}
    facts = card(outcome(executed_by={"raspberry-pi-4": ran}), EVALUATION, max_drop=0.015)
    text = render("report.md.j2", facts)
    assert "- raspberry-pi-4: accuracy, golden measured in LiteRT 2.3.0, XNNPACK delegate.\n" in text
    assert "- raspberry-pi-4: oracle measured in TFLM 1.\n" in text
    assert "<li>raspberry-pi-4: oracle measured in TFLM 1.</li>" in render("report.html.j2", facts)


NUMBERS = Outputs.of(Values(("level", "flow"), tolerance=1.0, unit=("m", "l/s")))
OF_NUMBERS = {
    "samples": 4,
    "train_samples": 10,
    "metrics": {"score": 0.91, "r2": 0.8},
    "baseline": {"said": "always the median", "metrics": {"score": 0.25}},
    "classes": [],
    "confusion": [],
    "subgroups": [{"name": "left", "samples": 2, "score": 0.5}],
    "fairness": {},
}


def of_outputs(outputs: Outputs, **metrics: float):
    """An outcome of a task without classes."""
    one = outcome()
    (artifact,) = one.build.artifacts
    numbers = {name: value for name, value in METRICS.items() if "accuracy" not in name} | {
        "score": 0.9,
        "float_score": 0.91,
    }
    build = replace(
        one.build,
        model_schema=ModelSchema(one.build.model_schema.inputs, outputs.tensors(), outputs),
        artifacts=(replace(artifact, metrics={**numbers, **metrics}, checks={"score": "passed"}),),
        metrics={"score": 0.91, "own": 3.0},
    )
    trials = [replace(trial, metrics=numbers if trial.metrics else {}) for trial in one.trials]
    parts = {"classes": [], "subgroups": [{"name": "left", "samples": 2, "score": 0.75}]}
    return outcome(build=build, trials=tuple(trials), evaluations={artifact.target: parts}, not_run={})


@pytest.mark.parametrize("template", ["report.md.j2", "report.html.j2"])
def test_a_regression_is_told_in_its_own_words_and_nothing_is_called_accuracy(template):
    facts = card(of_outputs(NUMBERS), OF_NUMBERS, max_drop=0.015)
    text = " ".join(render(template, facts).split())
    assert "accuracy" not in text.lower()
    assert "To give values (values) from x" in text
    assert "level, flow" in text
    assert "m, l/s" in text
    assert "points of worth of the values against" in text
    assert "worth of the values of always the median" in text
    assert "worth of the values in each subgroup" in text
    assert "Classes:" not in text
    for share in ("90.00%", "50.00%", "75.00%"):
        assert share in text


def test_metrics_of_the_kind_and_of_the_user_stand_beside_the_mean_score():
    facts = card(of_outputs(NUMBERS), OF_NUMBERS, max_drop=0.015)
    assert facts["metrics"] == [("score", 0.91), ("r2", 0.8), ("own", 3.0)]
    assert facts["baseline"] == {"said": "always the median", "score": 0.25}
    [artifact] = of_outputs(NUMBERS).to_record()["artifacts"]
    assert (artifact["score"], artifact["float_score"], artifact["accuracy"]) == (0.9, 0.91, None)


@pytest.mark.parametrize("template", ["report.md.j2", "report.html.j2"])
def test_a_forecast_stands_beside_the_last_value(template):
    plain, told = (
        " ".join(render(template, card(of_outputs(NUMBERS), {**OF_NUMBERS, **more}, max_drop=0.015)).split())
        for more in ({}, {"last_value": 0.625})
    )
    assert "the last value" not in plain
    assert "worth of the values of always the last value" in told
    assert "0.625" in told


def test_each_of_several_outputs_is_shown_with_how_near_it_is():
    outputs = Outputs({"kind": Classes(("a", "b")), "level": Values(("m",), tolerance=1.0)})
    near = {"snr_db.kind": 40.0, "agreement.kind": 0.99, "snr_db.level": 20.0, "agreement.level": 0.97}
    facts = card(of_outputs(outputs, **near), OF_NUMBERS, max_drop=0.015)
    text = render("report.md.j2", facts)
    assert "| raspberry-pi-4 | level | 20 | 97.00% |" in text
    assert "| kind | classes | 2 | - | a, b |" in text
    assert "To give kind (classes) and level (values) from x" in text


def test_a_classifier_is_compared_with_the_most_frequent_class():
    said = {"said": "always 'no', the most frequent class", "metrics": {"accuracy": 0.5}}
    text = render("report.md.j2", card(outcome(), {**EVALUATION, "baseline": said}, max_drop=0.015))
    assert "- accuracy of always 'no', the most frequent class: 0.5" in text
