"""Distillation of logits (distill_logits.py), of features (distill_features.py), and the student (student.py)."""

import dataclasses

import pytest

torch = pytest.importorskip("torch")

from hedgerow.compile.errors import PassError, PassSettingsError, UnsuitableError  # noqa: E402 - needs torch
from hedgerow.compile.passes.model.distill_features import DistillFeatures  # noqa: E402
from hedgerow.compile.passes.model.distill_logits import DistillLogits  # noqa: E402
from hedgerow.compile.passes.model.student import make_student, teacher_outputs  # noqa: E402
from hedgerow.compile.passes.runner import run_model_pass  # noqa: E402
from hedgerow.task_module import LogitsModule  # noqa: E402
from tests.compile.passes.networks import Cramped, Student, accuracy_of, parameters, same_weights  # noqa: E402

pytestmark = pytest.mark.heavy

SETTINGS = {"epochs": 3, "learning_rate": 0.01}


@pytest.mark.parametrize("distill", [DistillLogits, DistillFeatures])
def test_the_student_is_smaller_and_learns(distill, source, held_out):
    taught = run_model_pass(distill(**{**SETTINGS, "epochs": 5}), source)
    assert isinstance(taught.model, Student)
    assert parameters(taught.model) < parameters(source.model) / 4
    assert accuracy_of(taught, held_out) > accuracy_of(source, held_out) - 0.06


def distance_to_teacher(source, model):
    images = torch.from_numpy(source.train.inputs["image"])
    with torch.no_grad():
        wanted, found = (LogitsModule(source.task, one)(images).log_softmax(1) for one in (source.model, model))
    return float(torch.nn.functional.kl_div(found, wanted, reduction="batchmean", log_target=True))


def test_the_teachers_share_pulls_the_student_towards_the_teacher(source):
    alone = run_model_pass(DistillLogits(**SETTINGS, teacher_share=0.0), source).model
    taught = run_model_pass(DistillLogits(**SETTINGS, teacher_share=0.9), source).model
    assert distance_to_teacher(source, taught) < distance_to_teacher(source, alone)


def test_the_logits_of_the_teacher_are_those_of_the_model(source):
    found = teacher_outputs("distill-logits", source)[0]
    assert found.shape == (600, 10)
    image = torch.from_numpy(source.train.inputs["image"][431:432])
    with torch.no_grad():
        assert torch.allclose(LogitsModule(source.task, source.model)(image)[0], found[431], atol=1e-5)


@pytest.mark.parametrize("distill", [DistillLogits, DistillFeatures])
def test_the_same_seed_gives_the_same_student(distill, source):
    torch.manual_seed(1)
    one = run_model_pass(distill(**{**SETTINGS, "epochs": 1}), source).model
    torch.manual_seed(2)
    assert same_weights(one, run_model_pass(distill(**{**SETTINGS, "epochs": 1}), source).model)
    other = run_model_pass(distill(**{**SETTINGS, "epochs": 1}), dataclasses.replace(source, seed=4)).model
    assert not same_weights(one, other)


def test_named_layers_are_compared(source):
    settings = {**SETTINGS, "epochs": 1}
    default = run_model_pass(DistillFeatures(**settings), source).model
    named = run_model_pass(DistillFeatures(**settings, teacher_layer="head", student_layer="head"), source).model
    spatial = run_model_pass(DistillFeatures(**settings, teacher_layer="down", student_layer="stem.1"), source).model
    assert same_weights(default, named)
    assert not same_weights(default, spatial)
    assert not source.model.head._forward_pre_hooks
    assert not named.head._forward_pre_hooks


def test_a_layer_that_is_absent_is_named(source):
    with pytest.raises(PassError, match="a model has no layer 'tail'"):
        run_model_pass(DistillFeatures(**SETTINGS, teacher_layer="tail"), source)


@pytest.mark.parametrize("distill", [DistillLogits, DistillFeatures])
def test_a_task_without_a_student_is_refused(distill, source):
    task = dataclasses.replace(source.task, student=None)
    with pytest.raises(UnsuitableError, match="a task with a student, found 'digits', which names none; give it stud"):
        run_model_pass(distill(**SETTINGS), dataclasses.replace(source, task=task))


def test_a_student_with_other_outputs_is_refused(source):
    task = dataclasses.replace(source.task, student=Cramped)
    with pytest.raises(PassError, match=r"the student's outputs are \[1, 9\], the model's \[1, 10\]"):
        make_student("distill-logits", dataclasses.replace(source, task=task))


def test_a_student_that_cannot_be_made_or_run_is_refused(source):
    def broken():
        raise OSError("no disk")

    for student, said in ((broken, "OSError: no disk"), (lambda: torch.nn.Linear(3, 10), "does not run on the task")):
        task = dataclasses.replace(source.task, student=student)
        with pytest.raises(PassError, match=said):
            make_student("distill-logits", dataclasses.replace(source, task=task))


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"teacher_share": 1.5}])
def test_settings_are_checked(wrong):
    with pytest.raises(PassSettingsError, match=next(iter(wrong))):
        DistillLogits(**SETTINGS, **wrong)
