"""What became of a compile: a build of what passed, what was refused and why, and what was tried."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hedgerow.compile.arena import Arena
from hedgerow.compile.build import Build
from hedgerow.compile.profile.host import HostLatency
from hedgerow.compile.refused import RefusedTarget
from hedgerow.compile.search import TriedRecipe

__all__ = ["Outcome"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a compile came to.

    Attributes:
        build: What passed; None when nothing did, and then nothing was written.
        refused: What did not.
        trials: Every recipe that was tried, in the order of targets and recipes.
        recipes: Target -> recipe of its artifact.
        cached: Targets whose artifact came from the cache.
        not_run: Target -> check that was not run -> why.
        executed_by: Target -> check -> what really ran the artifact for it: runtime, version, provider or delegate.
        arenas: Target -> the smallest tensor arena of its artifact, where that was measured.
        evaluations: Target -> its artifact per class and subgroup, see
            :func:`hedgerow.compile.evaluation.evaluate_parts`; absent where this host cannot run or evaluate it.
        latencies: Target -> what a prediction took on this machine. It differs from run to run, so it is no part of
            the build.
        seconds: Wall clock of the whole compile.
        instead_of: Target -> the recipes before that of its artifact, each refused; absent where the first one passed
            and where a search was asked for.
    """

    build: Build | None
    refused: tuple[RefusedTarget, ...]
    trials: tuple[TriedRecipe, ...]
    recipes: Mapping[str, str]
    cached: tuple[str, ...]
    latencies: Mapping[str, HostLatency]
    seconds: float
    not_run: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    evaluations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    executed_by: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    arenas: Mapping[str, Arena] = field(default_factory=dict)
    instead_of: Mapping[str, tuple[TriedRecipe, ...]] = field(default_factory=dict)

    @property
    def score_key(self) -> str:
        """What the mean score is called in metrics."""
        answers = self.build.model_schema.answers if self.build is not None else None
        if answers:
            return answers.score_key
        metrics = [artifact.metrics for artifact in (self.build.artifacts if self.build else ())]
        return "score" if any("score" in found for found in metrics) else "accuracy"

    @property
    def score_name(self) -> str:
        """What people call it."""
        answers = self.build.model_schema.answers if self.build is not None else None
        return answers.score_name if answers else self.score_key

    def to_record(self) -> dict[str, Any]:
        """Return this as plain JSON values: what ``hedgerow compile --json`` prints."""
        return {
            "seconds": round(self.seconds, 3),
            "cached": len(self.cached),
            "artifacts": [self._artifact(artifact) for artifact in (self.build.artifacts if self.build else ())],
            "train_graphs": [
                {"format": graph.format, "bytes": graph.blob.length_bytes, "sha256": graph.blob.sha256}
                for graph in (self.build.train_graphs if self.build else ())
            ],
            "refused": [refusal.to_record() for refusal in self.refused],
            "trials": [trial.to_record() for trial in self.trials],
        }

    def _artifact(self, artifact: Any) -> dict[str, Any]:
        metrics = {name: value for name, value in artifact.metrics.items() if name not in _WHOLE}
        metrics |= {name: int(artifact.metrics[name]) for name in _WHOLE if name in artifact.metrics}
        latency = self.latencies.get(artifact.target)
        evaluation = self.evaluations.get(artifact.target, {})
        absent = dict.fromkeys((*_ALWAYS, self.score_key, f"float_{self.score_key}"))
        return {
            "target": artifact.target,
            "format": artifact.format,
            "recipe": self.recipes[artifact.target],
            "passes": list(artifact.recipe),
            "instead_of": [trial.to_record() for trial in self.instead_of.get(artifact.target, ())],
            "sha256": artifact.blob.sha256,
            "cached": artifact.target in self.cached,
            "checks": dict(artifact.checks),
            "not_run": dict(self.not_run.get(artifact.target, {})),
            "executed_by": dict(self.executed_by.get(artifact.target, {})),
            "arena": arena.to_record() if (arena := self.arenas.get(artifact.target)) is not None else None,
            "classes": list(evaluation.get("classes", [])),
            "subgroups": list(evaluation.get("subgroups", [])),
            "latency_ms_p50": latency.p50_ms if latency else None,
            "latency_ms_p99": latency.p99_ms if latency else None,
            **absent,
            **metrics,
        }


_ALWAYS = (
    "accuracy",
    "agreement",
    "float_accuracy",
    "float_bytes",
    "macs",
    "peak_memory_bytes",
    "snr_db",
    "target_energy_mj",
    "target_latency_ms",
)
"""Metrics that are null where they were not measured."""
_WHOLE = ("bytes", "float_bytes", "held_out_samples", "macs", "moved_bytes", "parameters", "peak_memory_bytes")
