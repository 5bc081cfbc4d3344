"""What a compile does next, from answers alone: no process, no clock."""

import pytest

from hedgerow.compile.budget import Budget
from hedgerow.compile.errors import PassError, TimeLimitError, VerificationError
from hedgerow.compile.failures import encode_failure
from hedgerow.compile.request import Request
from hedgerow.compile.search import Contest
from hedgerow.compile.session import Session
from hedgerow.compile.train_graph.options import StepOptions
from hedgerow.decode import Fields
from hedgerow.hardware.lookup import load_target
from hedgerow.progress import silent

PI = load_target("raspberry-pi-4")
RECIPES = ("onnx-int8-s8s8", "onnx-int8-s8s8-per-channel", "onnx-float")


def session(tmp_path, *, strict=False, **budget) -> Session:
    request = Request(
        task="task.py:task",
        checkpoint="checkpoint",
        weights_sha256="0" * 64,
        search_path=(),
        budget=Budget(**budget),
        train_options=StepOptions(optimizer="adam"),
        counts={},
    )
    return Session(request, [Contest(PI, RECIPES)], tmp_path, None, strict=strict, report=silent)


def artifact_job(jobs):
    (found,) = [job for job in jobs if job.artifacts]
    return found


def refuse(one: Session, recipe: str, error) -> None:
    answer = {"kind": "artifact", "name": PI.name, "recipe": recipe, "failure": encode_failure(error)}
    one.take("refused", Fields(answer, "answer"))


def too_coarse() -> VerificationError:
    return VerificationError(PI.name, "accuracy", "a", "b", measured={"bytes": 700.0, "accuracy": 0.5})


def test_all_recipes_of_a_target_share_its_time(tmp_path):
    one = session(tmp_path, limit_s=600.0)
    first = artifact_job(one.jobs())
    assert (first.limit_s, first.artifacts[PI.name].name) == (600.0, RECIPES[0])
    refuse(one, RECIPES[0], too_coarse())
    second = artifact_job(one.jobs_after(first, 450.0))
    assert (second.limit_s, second.artifacts[PI.name].name) == (150.0, RECIPES[1])
    refuse(one, RECIPES[1], too_coarse())
    # A job that has no time left is begun all the same, and says so when it is ended.
    assert artifact_job(one.jobs_after(second, 200.0)).limit_s == 1.0


def test_a_target_whose_time_is_over_gets_no_other_recipe(tmp_path):
    one = session(tmp_path)
    first = artifact_job(one.jobs())
    one.refuse_job(first, TimeLimitError(first.work, 600.0, ""))
    assert [job for job in one.jobs_after(first, 600.0) if job.artifacts] == []


def test_the_floors_of_the_budget_travel_with_the_recipe_and_the_options_with_the_train_graph(tmp_path):
    jobs = session(tmp_path, minimum_snr_db=7.5, minimum_agreement=0.5).jobs()
    sent = artifact_job(jobs).artifacts[PI.name].read()
    assert (sent.minimum_snr_db, sent.minimum_agreement) == (7.5, 0.5)
    assert {job.train_options for job in jobs if job.train_formats} == {("optimizer=adam",)}


def test_a_strict_compile_raises_the_first_recipes_refusal_when_none_is_left(tmp_path):
    one = session(tmp_path, strict=True)
    job = artifact_job(one.jobs())
    for recipe in RECIPES[:-1]:
        refuse(one, recipe, too_coarse())
        job = artifact_job(one.jobs_after(job, 1.0))
    with pytest.raises(VerificationError, match="failed the check 'accuracy'"):
        refuse(one, RECIPES[-1], PassError("trim-onnx", "because"))
