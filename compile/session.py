"""One compile on its way: what is known, what is being made, what to make next.

It takes answers from the cache and from workers alike. No process, no clock; its disk is the cache and the build's
folder.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hedgerow.checkpoint import Checkpoint
from hedgerow.compile.arena import Arena
from hedgerow.compile.build import BLOB_FOLDER, Build, add_blob
from hedgerow.compile.cache import CachedResult, ResultCache, blobs_named, result_key
from hedgerow.compile.dependencies import task_fingerprint, tool_versions
from hedgerow.compile.edgetpu import find_compiler
from hedgerow.compile.errors import UnsuitableError, UntranslatableError, VerificationError
from hedgerow.compile.failures import decode_failure
from hedgerow.compile.messages import Job, SentRecipe, Unit
from hedgerow.compile.outcome import Outcome
from hedgerow.compile.passes.builtin import PASSES, pass_reference
from hedgerow.compile.profile.host import HostLatency
from hedgerow.compile.recipe import Recipe
from hedgerow.compile.recipes import find_recipe
from hedgerow.compile.refused import RefusedTarget, further_recipes, refused_by, refused_trial
from hedgerow.compile.request import Request
from hedgerow.compile.search import PASSED, Contest, TriedRecipe, best_trial, next_recipe, refused_elsewhere
from hedgerow.compile.toolchains import TOOLCHAIN_OF
from hedgerow.compile.verify import NOT_RUN
from hedgerow.decode import Fields
from hedgerow.errors import DecodeError, HedgerowError
from hedgerow.manifest.artifact import Artifact
from hedgerow.manifest.content import Blob
from hedgerow.manifest.train_graph import TrainGraph
from hedgerow.model_schema import ModelSchema
from hedgerow.progress import Progress, Report

__all__ = ["Session"]

_LEAST_LIMIT_S = 1.0
_COST = {"train_graph": 2, "artifact": 1, "reference": 0}


class Session:
    """Collects answers, in whatever order they come, and says what is to be made.

    Args:
        request: What everything is made from.
        contests: What is looked for, for each target.
        folder: The build's, where blobs go.
        cache: Earlier results, if any.
        strict: Whether the first refusal is an error.
        report: Takes progress of what comes from the cache.
    """

    def __init__(
        self,
        request: Request,
        contests: Sequence[Contest],
        folder: Path,
        cache: ResultCache | None,
        *,
        strict: bool,
        report: Report,
    ) -> None:
        self._request, self._contests, self._folder, self._cache = request, tuple(contests), folder, cache
        self._strict, self._report = strict, report
        self._targets = {contest.target.name: contest.target for contest in self._contests}
        self._under_way: set[Unit] = set()
        self._answers: dict[Unit, dict[str, Any]] = {}
        self._refused: dict[Unit, HedgerowError] = {}
        self._from_cache: set[Unit] = set()
        self._trials: list[TriedRecipe] = []
        self._fingerprint: str | None = None
        self._spent_s: dict[str, float] = defaultdict(float)

    def jobs_after(self, job: Job, elapsed_s: float) -> list[Job]:
        """Return what can be begun now that *job* has ended, which took *elapsed_s*."""
        for unit in job.units:
            self._spent_s[unit.name] += elapsed_s
        return self.jobs()

    def _recipe(self, unit: Unit) -> Recipe:
        return self._request.budget.applied_to(find_recipe(unit.recipe))

    def jobs(self) -> list[Job]:
        """Return what can be begun now and is not in the cache, the longest first."""
        found: list[Unit] = []
        while wanted := self._wanted():
            for unit in wanted:
                if not self._load(unit):
                    found.append(unit)
                    self._under_way.add(unit)
        return self._grouped(found)

    def _wanted(self) -> list[Unit]:
        """Return the units that somebody waits for and nobody makes."""
        formats = sorted({contest.target.train_format for contest in self._contests} - {""})
        units = [Unit("reference"), *(Unit("train_graph", kind) for kind in formats)]
        for contest in self._contests:
            name = contest.target.name
            if any(unit.name == name for unit in self._under_way if unit.kind == "artifact"):
                continue
            recipe = next_recipe(contest, self._trials)
            while contest.prefer is not None and recipe is not None:
                skipped = refused_elsewhere(contest, recipe, self._trials)
                if skipped is None:
                    break
                self._trials.append(skipped)
                recipe = next_recipe(contest, self._trials)
            if recipe is not None:
                units.append(Unit("artifact", name, recipe))
        return [unit for unit in units if unit not in {*self._answers, *self._refused, *self._under_way}]

    def _grouped(self, units: Sequence[Unit]) -> list[Job]:
        """Return jobs: targets of one recipe share one, because they share the file."""
        groups: dict[tuple[str, str, str], list[Unit]] = {}
        chains = {unit: _toolchain(unit) for unit in units if unit.kind != "reference"}
        load = {name: sum(_COST[unit.kind] for unit in chains if chains[unit] == name) for name in chains.values()}
        for unit in units:
            # The reference needs no toolchain: it goes to the one with the least to do.
            chain = chains.get(unit) or min(sorted(load), key=lambda name: load[name], default="onnx")
            key = (chain, unit.kind, unit.recipe or unit.name)
            groups.setdefault(key, []).append(unit)
        ordered = sorted(groups.items(), key=lambda entry: (-_COST[entry[0][1]], entry[0]))
        return [
            Job(
                toolchain=chain,
                task=self._request.task,
                checkpoint=self._request.checkpoint,
                weights_sha256=self._request.weights_sha256,
                folder=str(self._folder),
                search_path=self._request.search_path,
                max_drop=self._request.budget.max_drop,
                limit_s=max(_LEAST_LIMIT_S, self._request.budget.limit_s - max(self._spent_s[u.name] for u in members)),
                artifacts={unit.name: SentRecipe.of(self._recipe(unit)) for unit in members if unit.recipe},
                targets={unit.name: self._targets[unit.name] for unit in members if unit.recipe},
                train_formats=tuple(unit.name for unit in members if unit.kind == "train_graph"),
                train_options=self._request.train_options.pairs(),
                reference=any(unit.kind == "reference" for unit in members),
                counts=self._request.counts,
            )
            for (chain, _kind, _recipe), members in ordered
        ]

    def take(self, kind: str, fields: Fields) -> None:
        """Keep one result of a worker.

        Raises:
            DecodeError: It is not what it says.
            HedgerowError: It is a refusal, and this session is strict.
        """
        answer = fields.plain()
        if kind == "refused":
            unit = Unit(fields.text("kind"), fields.text("name"), fields.text("recipe"))
            error = decode_failure(fields.nested("failure"))
            # What a check found, or the task lacks, is so again; a step may have failed for want of memory.
            if isinstance(error, VerificationError | UnsuitableError | UntranslatableError):
                self._store(unit, kind, answer)
            self._refuse(unit, error)
            return
        unit = Unit.answered(kind, answer)
        self._accept(unit, answer)
        self._store(unit, kind, answer)

    def refuse_job(self, job: Job, error: HedgerowError) -> None:
        """Refuse whatever a job has not answered, because it ended early.

        Raises:
            HedgerowError: This session is strict.
        """
        for unit in job.units:
            if unit in self._under_way:
                self._refuse(unit, error)

    def _accept(self, unit: Unit, answer: dict[str, Any]) -> None:
        if unit.kind == "artifact":
            artifact = Artifact.from_fields(Fields(answer["artifact"], "artifact"))
            self._trials.append(
                TriedRecipe(
                    target=unit.name,
                    recipe=unit.recipe,
                    state=PASSED,
                    metrics=dict(artifact.metrics),
                    runtime=artifact.runtime,
                )
            )
        self._under_way.discard(unit)
        self._answers[unit] = answer

    def _refuse(self, unit: Unit, error: HedgerowError) -> None:
        self._under_way.discard(unit)
        self._refused[unit] = error
        going_on = False
        if unit.kind == "artifact":
            self._trials.append(refused_trial(unit, self._targets[unit.name].runtime, error))
            # One refused recipe is a trial like any other; the target is refused when none is left.
            contest = next(contest for contest in self._contests if contest.target.name == unit.name)
            going_on = contest.prefer is not None or next_recipe(contest, self._trials) is not None
            if not going_on:
                first = self._first_trial(contest)
                error = self._refused.get(Unit("artifact", first.target, first.recipe), error)
        if unit.kind == "reference" or (self._strict and not going_on):
            raise error

    def _first_trial(self, contest: Contest) -> TriedRecipe:
        """Return the trial of the recipe that the target prefers: its refusal says most."""
        own = [trial for trial in self._trials if trial.target == contest.target.name]
        return min(own, key=lambda trial: contest.candidates.index(trial.recipe))

    def _load(self, unit: Unit) -> bool:
        """Take a unit's answer from the cache; return whether it was there."""
        if self._cache is None:
            return False
        result = self._cache.load(self._key(unit))
        if result is None:
            return False
        for content in result.blobs.values():
            add_blob(self._folder, content)
        answer = dict(result.answer)
        try:
            if result.kind == "refused":
                error = decode_failure(Fields(answer, "cache entry").nested("failure"))
            else:
                self._accept(unit, answer)
                error = None
        except (DecodeError, KeyError):
            return False  # written by a version that says the same of itself, while it was being changed
        self._from_cache.add(unit)
        if error is not None:
            self._refuse(unit, error)
        if unit.kind == "artifact":
            self._report(Progress(f"compile {unit.name}", 1, 1, "from the cache"))
        return True

    def _store(self, unit: Unit, kind: str, answer: dict[str, Any]) -> None:
        if self._cache is not None:
            blobs = {name: (self._folder / BLOB_FOLDER / name).read_bytes() for name in blobs_named(answer)}
            self._cache.store(self._key(unit), CachedResult(kind, answer, blobs))

    def _key(self, unit: Unit) -> str:
        """Return the hash of everything that a unit's answer depends on."""
        if self._fingerprint is None:
            self._fingerprint = task_fingerprint(self._request.task, self._request.search_path)
        facts: dict[str, Any] = {
            "unit": asdict(unit),
            "weights": self._request.weights_sha256,
            "task": self._fingerprint,
            "tools": tool_versions(),
        }
        if unit.kind == "artifact":
            facts |= {
                "target": self._targets[unit.name].to_record(),
                "recipe": self._recipe(unit).to_record(),
                "passes": self._passes_fingerprint(unit.recipe),
                "max_drop": self._request.budget.max_drop,
                # Its check is not run where it is absent, and must be once it is installed.
                "edgetpu_compiler": find_compiler() if self._targets[unit.name].accelerator == "edgetpu" else None,
            }
        elif unit.kind == "train_graph":
            facts["options"] = self._request.train_options.pairs()
        elif unit.kind == "reference":
            facts["counts"] = {name: list(values) for name, values in self._request.counts.items()}
        return result_key(facts)

    def _passes_fingerprint(self, recipe: str) -> dict[str, str]:
        """Return the hashes of the sources of passes that are not ours; ours are in the tools' versions."""
        found = find_recipe(recipe)
        references = {pass_reference(type(step)) for step in (*found.model_passes, *found.passes, *found.float_passes)}
        search_path = self._request.search_path
        return {name: task_fingerprint(name, search_path) for name in sorted(references) if name not in PASSES}

    @property
    def evaluation(self) -> Mapping[str, Any]:
        """The float model, per class and subgroup; see :mod:`hedgerow.compile.evaluation`."""
        found: Mapping[str, Any] = self._answers[Unit("reference")]["evaluation"]
        return found

    def outcome(self, checkpoint: Checkpoint, elapsed_s: Callable[[], float]) -> Outcome:
        """Return what the compile came to.

        Raises:
            HedgerowError: A target was refused, and this session is strict.
        """
        artifacts, recipes, latencies, cached, refused = [], {}, {}, [], []
        not_run, evaluations = {}, {}
        executed_by, arenas, instead_of = {}, {}, {}
        for contest in self._contests:
            name = contest.target.name
            best = best_trial(contest, self._trials)
            if best is None:
                refused.append(self._refusal(contest))
                continue
            unit = Unit("artifact", name, best.recipe)
            answer = self._answers[unit]
            before = tuple(trial for trial in self._trials if trial.target == name and trial is not best)
            if contest.prefer is None and before:
                instead_of[name] = before
            artifacts.append(self._with_training(Artifact.from_fields(Fields(answer["artifact"], "artifact"))))
            recipes[name], not_run[name] = best.recipe, {**answer["not_run"], **self._without_training(name)}
            executed_by[name] = answer["executed_by"]
            if answer["arena"] is not None:
                arenas[name] = Arena.from_fields(Fields(answer["arena"], "arena"))
            if answer["evaluation"] is not None:
                evaluations[name] = answer["evaluation"]
            if answer["latency"] is not None:
                latencies[name] = HostLatency.from_fields(Fields(answer["latency"], "latency"))
            if unit in self._from_cache:
                cached.append(name)
        refused += [
            RefusedTarget(
                target=unit.subject,
                recipe="",
                check=refused_by(error),
                reason=str(error),
                details=getattr(error, "details", ""),
            )
            for unit, error in sorted(self._refused.items())
            if unit.kind == "train_graph"
        ]
        order = {contest.target.name: place for place, contest in enumerate(self._contests)}
        return Outcome(
            build=self._build(checkpoint, artifacts) if artifacts else None,
            refused=tuple(refused),
            trials=tuple(sorted(self._trials, key=lambda trial: (order[trial.target], trial.recipe))),
            recipes=recipes,
            cached=tuple(cached),
            latencies=latencies,
            seconds=elapsed_s(),
            not_run=not_run,
            evaluations=evaluations,
            executed_by=executed_by,
            arenas=arenas,
            instead_of=instead_of,
        )

    def _refusal(self, contest: Contest) -> RefusedTarget:
        name = contest.target.name
        if self._strict:
            # A skipped recipe was refused for another target: that refusal is the error.
            raise next(error for unit, error in self._refused.items() if unit.recipe in contest.candidates)
        first = self._first_trial(contest)
        error = self._refused.get(Unit("artifact", name, first.recipe))
        return RefusedTarget(
            target=name,
            recipe=first.recipe,
            check=first.check,
            reason=first.reason,
            further=further_recipes(contest, first, self._trials),
            details=getattr(error, "details", ""),
        )

    def _with_training(self, artifact: Artifact) -> Artifact:
        """Return *artifact* with what the train graph of its target was found to be, for whoever reads it alone."""
        answer = self._answers.get(Unit("train_graph", self._targets[artifact.target].train_format))
        if answer is None:
            return artifact
        checks = {**artifact.checks, "train graph": PASSED if answer["graph"] is not None else NOT_RUN}
        if answer["graph"] is None:
            return replace(artifact, checks=checks)
        return replace(artifact, checks=checks, metrics={**artifact.metrics, "train_difference": answer["difference"]})

    def _without_training(self, target: str) -> dict[str, str]:
        """Return why a target has no train graph; nothing where it has one or wants none."""
        answer = self._answers.get(Unit("train_graph", self._targets[target].train_format), {"graph": ""})
        return {"train graph": answer["not_run"]} if answer["graph"] is None else {}

    def _build(self, checkpoint: Checkpoint, artifacts: Sequence[Artifact]) -> Build:
        reference = Fields(self._answers[Unit("reference")], "reference")
        metrics = reference.nested("metrics")
        graphs = [
            TrainGraph.from_fields(Fields(answer["graph"], "train graph"))
            for unit, answer in sorted(self._answers.items(), key=lambda entry: entry[0])
            if unit.kind == "train_graph" and answer["graph"] is not None
        ]
        return Build(
            task=reference.text("task"),
            model_schema=ModelSchema.from_fields(reference.nested("model_schema")),
            artifacts=tuple(artifacts),
            train_graphs=tuple(graphs),
            reference=Blob.from_fields(reference.nested("reference")),
            checkpoint_sha256=self._request.weights_sha256,
            run=checkpoint.run,
            data_fingerprint=checkpoint.data_fingerprint or reference.text("data_fingerprint"),
            metrics={name: metrics.number(name) for name in metrics.names()},
            parent=checkpoint.parent,
        )


def _toolchain(unit: Unit) -> str:
    return TOOLCHAIN_OF[unit.name] if unit.kind == "train_graph" else find_recipe(unit.recipe).toolchain
