"""Tests of hedgerow.server.weights.weights_file: real files of torch, read in a real process."""

import argparse
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from hedgerow.server.weights.errors import WeightsFileError
from hedgerow.server.weights.weights_file import read_weights

pytestmark = pytest.mark.heavy
SAVE = "save its weights alone where it was made: torch.save(model.state_dict(), 'weights.pt')"


class Own:
    """What a file may want to call."""

    ran = "/nowhere"

    def __reduce__(self):
        return os.mkdir, (self.ran,)


def model():
    import torch

    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))


def saved(path, value, **options):
    import torch

    torch.save(value, path, **options)
    return path


@pytest.mark.parametrize("form", ["archive", "legacy", "safetensors", "state_dict", "model_state_dict", "model", "a.b"])
def test_the_weights_of_each_form_are_those_that_were_saved(tmp_path, form):
    from safetensors.torch import save_file

    state = model().state_dict()
    path, entry = tmp_path / "m.bin", ""
    if form == "archive":
        saved(path, state)
    elif form == "legacy":
        saved(path, state, _use_new_zipfile_serialization=False)
    elif form == "safetensors":
        save_file(state, path)
    elif form == "a.b":
        saved(path, {"a": {"b": state}, "epoch": 3})
        entry = "a.b"
    else:
        saved(path, {form: state, "epoch": 3, "optimizer": {"lr": 0.1}})

    found = read_weights(path, entry=entry)

    assert found.arrays.keys() == state.keys()
    for name, value in state.items():
        assert found.arrays[name].dtype == value.numpy().dtype
        assert np.array_equal(found.arrays[name], value.numpy())
    assert found.entry == (form if "." in form or form in {"state_dict", "model_state_dict", "model"} else "")


def test_bfloat16_is_widened_and_named_and_half_stays(tmp_path):
    import torch

    state = {"a": torch.tensor([1.5, -2.0], dtype=torch.bfloat16), "b": torch.tensor([0.25], dtype=torch.float16)}
    found = read_weights(saved(tmp_path / "m.pt", state))

    assert found.arrays["a"].tolist() == [1.5, -2.0]
    assert (found.arrays["a"].dtype, found.arrays["b"].dtype, found.widened) == (np.float32, np.float16, {"a"})


def refusal(path, **options) -> str:
    with pytest.raises(WeightsFileError) as caught:
        read_weights(path, **options)
    sentence = str(caught.value)
    for start in (f"expected a state dict in {path}, found ", f"expected a file of weights in {path}, found "):
        sentence = sentence.removeprefix(start)
    return sentence.replace(str(path), "FILE")


def test_a_file_that_would_run_code_runs_none(tmp_path):
    Own.ran = str(tmp_path / "ran")
    path = tmp_path / "m.pt"
    found = {}
    for name, options in (("archive", {}), ("legacy", {"_use_new_zipfile_serialization": False})):
        found[name] = refusal(saved(path, {"a": Own()}, **options))
    path.write_bytes(pickle.dumps(Own()))
    found["pickle"] = refusal(path)

    objects = f"Python objects beside tensors (posix.mkdir), which are code and never run here; {SAVE}"
    assert found["archive"] == found["legacy"] == objects
    assert "damaged" in found["pickle"] or found["pickle"] == objects
    assert not (tmp_path / "ran").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch deprecates TorchScript
def test_whole_models_and_other_objects_are_told_how_to_save_weights(tmp_path):
    import torch

    whole = f"a whole pickled model, which is code and never run here; {SAVE}"
    assert refusal(saved(tmp_path / "m.pt", model())) == whole
    assert refusal(saved(tmp_path / "m.pt", {"model": model()})) == whole
    with_objects = {"state_dict": model().state_dict(), "options": argparse.Namespace(a=1)}
    assert refusal(saved(tmp_path / "m.pt", with_objects)) == (
        f"Python objects beside tensors (argparse.Namespace), which are code and never run here; {SAVE}"
    )
    torch.jit.save(torch.jit.script(model()), tmp_path / "m.pt")
    assert refusal(tmp_path / "m.pt").startswith("a TorchScript file, whose code is never run here; save its weights")


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({}, f"no tensor among nothing; {SAVE}"),
        ([1, 2], f"a list without names; {SAVE}"),
        ({"epoch": 3}, f"no tensor among 'epoch' (int); {SAVE}"),
        ({"state_dict": {}}, f"an empty one; {SAVE}"),
        ({"net": {"w": "TENSOR"}}, "no tensor among 'net' (dict); say what holds the weights: --entry net"),
        ({"n": {"m": {"w": "TENSOR"}}}, "no tensor among 'n' (dict); say what holds the weights: --entry n.m"),
        (
            {"model": {"w": "TENSOR"}, "state_dict": {"w": "TENSOR"}},
            "several: 'state_dict', 'model'; say which: --entry state_dict",
        ),
        ({"w": "TENSOR", "b": [1.0]}, f"b as a list; leave out what is no tensor, or {SAVE}"),
        ({"w": "TENSOR", 3: "TENSOR"}, "a tensor called 3; name tensors by text of at most 512 signs"),
        ({"w": "SPARSE"}, "w as a tensor that is sparse; save the float weights as they were trained"),
        ({"w": "QUANTIZED"}, "w as a tensor that is quantized; save the float weights as they were trained"),
        ({"w": "COMPLEX"}, "w as a tensor that is complex64; save the float weights as they were trained"),
        ({"w": "META"}, "w as a tensor that is without values; save the float weights as they were trained"),
        ({"w": "BOMB"}, "4,000,000,000,000 bytes of tensors; give at most 8,589,934,592"),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch deprecates quantized tensors
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_is_no_state_dict_is_refused_by_what_it_is(tmp_path, value, sentence):
    import torch

    tensors = {
        "TENSOR": lambda: torch.ones(2),
        "SPARSE": lambda: torch.ones(2).to_sparse(),
        "QUANTIZED": lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        "COMPLEX": lambda: torch.ones(2, dtype=torch.complex64),
        "META": lambda: torch.ones(2, device="meta"),
        # One number in the file, a view of it that is a million times a million large.
        "BOMB": lambda: torch.ones(1).expand(10**6, 10**6),
    }

    def made(part):
        if isinstance(part, dict):
            return {name: made(each) for name, each in part.items()}
        return tensors[part]() if isinstance(part, str) else part

    assert refusal(saved(tmp_path / "m.pt", made(value))) == sentence


@pytest.mark.parametrize("keep", [5, 100, 0.5, 0.95])
def test_a_file_that_is_cut_short_is_refused(tmp_path, keep):
    path = saved(tmp_path / "m.pt", model().state_dict())
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])

    assert refusal(path) == "an archive that is damaged or cut short; copy or save it again"


def test_damage_inside_is_refused_or_gives_tensors_of_the_same_names(tmp_path):
    path = saved(tmp_path / "m.pt", model().state_dict())
    content = bytearray(path.read_bytes())
    place = content.index(b"data.pkl") + 200
    content[place : place + 8] = b"\xff" * 8
    path.write_bytes(content)

    assert "damaged" in refusal(path)


def test_a_reader_that_does_not_end_in_time_is_ended(tmp_path):
    path = saved(tmp_path / "m.pt", model().state_dict())

    assert refusal(path, timeout_s=0.01) == "one that is not read within 0.01 s; save it again, or give another one"


def test_a_machine_without_memory_is_not_blamed_on_the_file(tmp_path, monkeypatch):
    import torch

    from hedgerow.children.channel import channel_pair
    from hedgerow.decode import decode_json, encode_json
    from hedgerow.server.weights import reading_child

    def without_memory(*_args, **_options):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory")

    path = saved(tmp_path / "m.pt", model().state_dict())
    monkeypatch.setattr(torch, "load", without_memory)
    monkeypatch.setattr(reading_child, "bound_process", lambda **_limits: None)
    ours, theirs = channel_pair(2**20)
    with ours, theirs:
        ours.send(encode_json({"path": str(path), "folder": str(tmp_path), "entry": ""}))
        reading_child.serve(theirs)
        answer = decode_json(ours.receive(5), "answer", limit_bytes=2**20).plain()
    assert answer == {"failed": {"doing": "unpacked", "reason": "memory is not enough"}}


@pytest.mark.parametrize(
    "message",
    [
        b"{}",
        b"no JSON",
        b'{"read":{}}',
        b'{"read":{"entry":"","widened":[1]}}',
        b'{"read":{"entry":"","widened":[],"more":1}}',
        b'{"refused":{"found":1,"advice":""}}',
        b'{"failed":{"doing":"read"}}',
    ],
)
def test_a_reader_that_says_nonsense_is_not_believed(tmp_path, monkeypatch, message):
    from safetensors.numpy import save

    from hedgerow.children.ended import Ended
    from hedgerow.decode import decode_json
    from hedgerow.server.weights import weights_file

    def converse(_child, request, hear, **_times):
        asked = decode_json(request, "request", limit_bytes=2**20)
        (Path(asked.text("folder", maximum_chars=4096)) / "arrays").write_bytes(save({"w": np.ones(1)}))
        hear(message)
        return Ended(name="reader", code=0)

    monkeypatch.setattr(weights_file, "ModuleChild", lambda *_args, output, **_options: output.close())
    monkeypatch.setattr(weights_file, "converse", converse)
    (tmp_path / "m.pt").touch()

    assert refusal(tmp_path / "m.pt").startswith("one that makes its reader say nonsense (")


def test_folders_and_what_is_not_there_are_told(tmp_path):
    assert refusal(tmp_path / "m.pt") == "no such file; correct the path"
    assert refusal(tmp_path) == "a folder; give a file"
    (tmp_path / "model.safetensors").touch()
    assert refusal(tmp_path) == "a folder; give the file in it, such as FILE/model.safetensors"
    (tmp_path / "checkpoint.json").touch()
    assert refusal(tmp_path) == "a checkpoint of Hedgerow's; it needs no import: use it as it is"
