"""Files as other people have them, through the command: packed, measured, quantized, and loaded by a device."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("ai_edge_litert")

from hedgerow.cli import main
from hedgerow.client.runtimes import load_runtime
from hedgerow.compile.arena import installed_version
from hedgerow.compile.build import load_build
from hedgerow.fleet.trust.release_fit import check_fit
from hedgerow.outputs import Classes, Outputs
from hedgerow.reference import Reference
from hedgerow.weights import decode_arrays
from tests.compile.foreign_models import (
    FEATURES,
    classes_of,
    edgetpu_tflite,
    forest_onnx,
    linear_onnx,
    linear_tflite,
    samples,
    state_onnx,
    write_samples,
)

DIGITS = str(Path(__file__).parents[2] / "examples" / "digits" / "task.py") + ":task"

pytestmark = pytest.mark.heavy


@pytest.fixture
def pack(tmp_path, capsys):
    """Give what packs a file and returns the exit code, the record and the folder."""

    def run(content: bytes, *options: str, name: str = "model.onnx") -> tuple[int, dict, Path]:
        (tmp_path / name).write_bytes(content)
        out = tmp_path / "out"
        code = main(["compile", "--artifact", str(tmp_path / name), *options, "--out", str(out), "--json"])
        said = capsys.readouterr()
        return code, json.loads(said.out.splitlines()[-1]) if said.out else {"error": said.err}, out

    return run


@pytest.fixture
def data(tmp_path) -> str:
    values, labels = samples(200)
    return str(write_samples(tmp_path / "data.npz", x=values, labels=labels))


def replayed(out: Path) -> float:
    """Return how far a device's replay of the golden samples is from them, for a build of one artifact."""
    build = load_build(out)
    check_fit(build, out)
    [artifact] = build.artifacts
    model = load_runtime(artifact.runtime).load(out / "blobs" / artifact.blob.sha256, artifact)
    content = (out / "blobs" / artifact.golden.sha256).read_bytes()
    golden = decode_arrays(content, "golden", limit_bytes=10**8)
    inputs = {key.removeprefix("input."): value for key, value in golden.items() if key.startswith("input.")}
    build.model_schema.check_inputs(inputs)
    found = model.predict(inputs)
    wanted = {key.removeprefix("output."): value for key, value in golden.items() if key.startswith("output.")}
    assert sorted(found) == sorted(wanted)
    assert {name: values.shape for name, values in found.items()} == {k: v.shape for k, v in wanted.items()}
    return max(float(np.abs(found[name] - wanted[name]).max()) for name in wanted)


@pytest.mark.parametrize(
    ("taken", "given", "options", "shape"),
    [
        (("batch", FEATURES), ("batch", 3), (), (FEATURES,)),
        ((1, FEATURES), (1, 3), (), (FEATURES,)),
        ((FEATURES,), (3,), (), (FEATURES,)),
        ((5, "batch", FEATURES), (5, "batch", 3), ("--shape", f"x=5x1x{FEATURES}"), (5, 1, FEATURES)),
        ((4, FEATURES), (4, 3), (), (4, FEATURES)),
        (("batch", "time", FEATURES), ("batch", "time", 3), ("--shape", f"x=1x7x{FEATURES}"), (7, FEATURES)),
        (("batch", FEATURES), None, (), (FEATURES,)),
        (("batch", FEATURES), ("batch", "classes"), (), (FEATURES,)),
    ],
)
def test_a_file_is_packed_wherever_its_batch_is_and_a_device_replays_it(taken, given, options, shape, pack):
    code, record, out = pack(linear_onnx(taken, given), "--target", "x86-gateway", *options)
    assert (code, record["refused"]) == (0, [])
    assert load_build(out).model_schema.inputs[0].shape == shape
    assert replayed(out) == 0.0


def test_accuracy_is_measured_in_the_targets_own_runtime_with_each_class_and_a_reference(pack, data):
    code, record, out = pack(linear_onnx(), "--target", "x86-gateway", "--data", data)
    assert (code, record["refused"]) == (0, [])
    [artifact] = record["artifacts"]
    # 50 of 200 are for calibration.
    assert (artifact["accuracy"], artifact["held_out_samples"]) == (1.0, 150)
    assert artifact["executed_by"]["accuracy"].startswith("ONNX Runtime ")
    assert artifact["checks"]["accuracy"] == "passed"
    assert set(artifact["not_run"]) == {"parity"}
    _, labels = samples(200)
    held_out = labels[np.arange(200) % 4 != 0]
    assert [row["support"] for row in artifact["classes"]] == np.bincount(held_out, minlength=3).tolist()
    assert artifact["latency_ms_p50"] > 0
    build = load_build(out)
    assert build.metrics == {"accuracy": 1.0}
    assert (build.model_schema.outputs[0].name, build.model_schema.answers.alone.part_names) == (
        "probabilities",
        ("0", "1", "2"),
    )
    reference = Reference.decode((out / "blobs" / build.reference.sha256).read_bytes())
    assert {"output.label", "output.confidence", "x.0"} <= {feature.name for feature in reference.features}
    card = (out / "report.md").read_text()
    assert "| 0 |" in card
    assert "It is not known on how many samples it was trained" in card
    values, _ = samples(200)
    golden = decode_arrays((out / "blobs" / build.artifacts[0].golden.sha256).read_bytes(), "golden", limit_bytes=10**7)
    assert all((row == values).all(axis=1).any() for row in golden["input.x"])


def test_wrong_labels_give_the_accuracy_that_they_deserve(pack, tmp_path):
    values, labels = samples(100)
    wrong = np.where(np.arange(100) % 5 == 1, (labels + 1) % 3, labels)
    held_out = np.arange(100) % 4 != 0
    path = write_samples(tmp_path / "wrong.npz", x=values, labels=wrong)
    _, record, _ = pack(linear_onnx(), "--target", "x86-gateway", "--data", str(path))
    expected = float((classes_of(values) == wrong)[held_out].mean())
    assert record["artifacts"][0]["accuracy"] == expected < 0.9


def test_a_table_of_text_is_data_too(pack, tmp_path):
    values, labels = samples(40)
    path = tmp_path / "data.csv"
    header = ",".join([f"f{place}" for place in range(FEATURES)] + ["labels"])
    np.savetxt(path, np.c_[values, labels], delimiter=",", header=header, comments="")
    _, record, _ = pack(linear_onnx(), "--target", "x86-gateway", "--data", str(path))
    assert record["artifacts"][0]["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"x": np.zeros((8, FEATURES))}, "an array 'labels' with the class of each sample, found 'x'"),
        (
            {"x": np.zeros((8, FEATURES)), "labels": np.zeros(7)},
            "as many labels as samples of every input, found 7 and",
        ),
        ({"x": np.zeros((8, 5)), "labels": np.zeros(8)}, f"samples of (n, {FEATURES}) for 'x', found (8, 5)"),
        ({"x": np.full((8, FEATURES), np.nan), "labels": np.zeros(8)}, "finite numbers for 'x', found NaN or infinity"),
        ({"x": np.zeros((8, FEATURES)), "labels": np.full(8, 0.5)}, "whole numbers from 0 as 'labels'"),
        ({"x": np.zeros((8, FEATURES)), "labels": np.array(["a"] * 8)}, "whole numbers from 0 as 'labels'"),
        ({"x": np.zeros((8, FEATURES)), "y": np.zeros(8), "labels": np.zeros(8)}, "arrays called 'x', found 'x', 'y'"),
        ({"x": np.zeros((1, FEATURES)), "labels": np.zeros(1)}, "at least two samples"),
    ],
)
def test_data_that_does_not_fit_the_file_is_one_sentence(arrays, expected, pack, tmp_path):
    path = write_samples(tmp_path / "data.npz", **arrays)
    code, record, out = pack(linear_onnx(), "--target", "x86-gateway", "--data", str(path))
    assert code == 1
    assert expected in record["error"]
    assert "Traceback" not in record["error"]
    assert not out.exists()


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 broken"])
def test_a_data_file_that_is_none_is_one_sentence(content, pack, tmp_path):
    (tmp_path / "data.npz").write_bytes(content)
    code, record, _ = pack(linear_onnx(), "--target", "x86-gateway", "--data", str(tmp_path / "data.npz"))
    assert code == 1
    assert "expected arrays of numbers as numpy.savez writes them, or a .csv file" in record["error"]


@pytest.mark.parametrize(("target", "recipe"), [("x86-gateway", "onnx-int8-s8s8"), ("raspberry-pi-4", "onnx-fp16")])
def test_an_onnx_file_is_quantized_by_a_recipe_and_compared_with_itself(target, recipe, pack, data):
    content = linear_onnx((1, FEATURES), (1, 3))
    code, record, out = pack(
        content, "--target", target, "--recipe", f"{target}={recipe}", "--data", data, "--max-drop", "4"
    )
    assert (code, record["refused"]) == (0, [])
    [artifact] = record["artifacts"]
    assert artifact["recipe"] == recipe
    assert (artifact["float_bytes"], artifact["float_accuracy"]) == (len(content), 1.0)
    assert artifact["bytes"] < len(content)
    assert artifact["accuracy"] >= 0.96
    assert {artifact["checks"][name] for name in ("accuracy", "parity", "golden", "size")} == {"passed"}
    assert artifact["executed_by"]["parity"].startswith("ONNX Runtime ")
    assert replayed(out) <= load_build(out).artifacts[0].golden_tolerance


@pytest.mark.skipif(installed_version() is None, reason="needs the extra mcu")
def test_a_float_file_that_a_microcontroller_cannot_run_is_quantized_and_judged_in_its_interpreter(pack, data):
    content = linear_tflite()
    targets = ("--target", "cortex-m7", "--target", "android-arm64")
    code, record, _ = pack(content, *targets, "--data", data, "--max-drop", "4", name="model.tflite")
    assert (code, record["refused"]) == (0, [])
    micro, phone = record["artifacts"]
    assert (micro["recipe"], phone["recipe"]) == ("tflite-int8-full", "third-party")
    assert [trial["recipe"] for trial in micro["instead_of"]] == ["third-party"]
    assert micro["instead_of"][0]["check"] == "all integer"
    assert micro["executed_by"]["accuracy"] == f"TensorFlow Lite Micro's reference kernels {installed_version()}"
    assert micro["accuracy"] >= 0.96
    assert micro["bytes"] < len(content) == micro["float_bytes"]


def test_a_recipe_that_needs_a_torch_model_refuses_by_name(pack, data):
    wish = ("--recipe", "x86-gateway=onnx-qat-int8")
    code, record, _ = pack(linear_onnx(), "--target", "x86-gateway", *wish, "--data", data)
    assert code == 1
    assert record["refused"][0]["reason"] == (
        "train-quantized: expected a torch model, found a file from elsewhere; choose a recipe that exports plainly "
        "and then works on files"
    )


def test_a_file_of_integers_is_not_quantized_again(pack, data):
    wish = ("--recipe", "android-arm64=tflite-int8")
    file = linear_tflite(border="INT16")
    code, record, _ = pack(file, "--target", "android-arm64", *wish, "--data", data, name="m.tflite")
    assert code == 1
    assert "a file whose weights are floats" in record["refused"][0]["reason"]


def test_a_recipe_without_samples_is_refused_with_what_to_give(pack):
    code, record, _ = pack(linear_onnx(), "--target", "x86-gateway", "--recipe", "x86-gateway=onnx-int8-s8s8")
    assert code == 1
    assert "give --data or --task" in record["error"]


def test_tensors_of_16_bits_are_measured(pack, data):
    file = linear_tflite(border="INT16")
    code, record, out = pack(file, "--target", "android-arm64", "--data", data, name="m.tflite")
    assert (code, record["refused"]) == (0, [])
    assert record["artifacts"][0]["accuracy"] >= 0.98
    assert {tensor.dtype for tensor in load_build(out).artifacts[0].inputs} == {"int16"}
    assert replayed(out) <= load_build(out).artifacts[0].golden_tolerance


def test_an_open_size_of_a_tflite_file_is_written_into_it(pack, data):
    options = ("--target", "android-arm64", "--shape", f"main/0=1x{FEATURES}", "--data", data)
    code, record, out = pack(linear_tflite(signature=[-1]), *options, name="m.tflite")
    assert (code, record["refused"]) == (0, [])
    assert record["artifacts"][0]["accuracy"] == 1.0
    assert load_build(out).artifacts[0].inputs[0].shape == (1, FEATURES)


def test_a_forest_from_scikit_learn_has_the_accuracy_that_scikit_learn_says(pack, tmp_path):
    pytest.importorskip("sklearn")
    skl2onnx = pytest.importorskip("skl2onnx")
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier

    values, labels = load_digits(return_X_y=True)
    values = values.astype(np.float32)
    forest = RandomForestClassifier(10, max_depth=6, random_state=0).fit(values[:900], labels[:900])
    path = write_samples(tmp_path / "data.npz", X=values[900:], labels=labels[900:])
    held_out = np.arange(len(labels) - 900) % 4 != 0
    expected = float((forest.predict(values[900:]) == labels[900:])[held_out].mean())
    for options, probabilities in (({}, False), ({"zipmap": False}, True)):
        made = skl2onnx.to_onnx(
            forest, values[:1], options={id(forest): options}, target_opset={"": 21, "ai.onnx.ml": 3}
        )
        code, record, out = pack(made.SerializeToString(), "--target", "x86-gateway", "--data", str(path))
        assert (code, record["refused"]) == (0, [])
        [artifact] = record["artifacts"]
        assert artifact["accuracy"] == pytest.approx(expected, abs=0.003)
        names = [spec.name for spec in load_build(out).model_schema.outputs]
        assert names == (["label", "probabilities"] if probabilities else ["output_label"])
        assert ("all outputs" in artifact["not_run"]) is not probabilities
        if not probabilities:
            assert "'output_probability' is a list of dictionaries" in artifact["not_run"]["all outputs"]
        assert replayed(out) == 0.0


def test_recurrent_state_is_carried_over_the_steps_of_a_sequence(pack, tmp_path):
    steps = np.random.default_rng(2).normal(size=(40, 5, 4)).astype(np.float32)
    labels = (steps.sum(axis=2).cumsum(axis=1) < 0).astype(np.int64)
    options = ("--target", "x86-gateway", "--shape", "x=1x4", "--shape", "state=2x1x4", "--state", "state=stateN")
    for given in (labels, labels[:, -1]):
        path = write_samples(tmp_path / "data.npz", x=steps, labels=given)
        code, record, out = pack(state_onnx(), *options, "--data", str(path))
        assert (code, record["refused"]) == (0, [])
        [artifact] = record["artifacts"]
        # A model that forgot would be right about the first step alone.
        assert artifact["accuracy"] == 1.0
        assert artifact["held_out_samples"] == 30 * (5 if given.ndim == 2 else 1)
        assert replayed(out) == 0.0
    build = load_build(out)
    assert build.model_schema.state == {"state": "staten"}
    assert [spec.name for spec in build.model_schema.given.inputs] == ["x"]
    [state] = [spec for spec in build.model_schema.inputs if spec.name == "state"]
    assert state.unit == "state: zero at the start, then the output staten of the call before"
    content = (out / "blobs" / build.artifacts[0].golden.sha256).read_bytes()
    golden = decode_arrays(content, "golden", limit_bytes=10**7)
    assert not golden["input.state"][[0, 5, 10, 15]].any()
    assert (golden["input.state"][1:5] == golden["output.staten"][:4]).all()


def test_the_state_of_a_file_that_is_quantized_is_calibrated_over_sequences(pack, tmp_path):
    steps = np.random.default_rng(2).normal(size=(40, 5, 4)).astype(np.float32)
    labels = (steps.sum(axis=2).cumsum(axis=1) < 0).astype(np.int64)
    path = write_samples(tmp_path / "data.npz", x=steps, labels=labels)
    options = ("--target", "x86-gateway", "--shape", "x=1x4", "--shape", "state=2x1x4", "--state", "state=stateN")
    wish = ("--recipe", "x86-gateway=onnx-int8-s8s8", "--max-drop", "20", "--min-agreement", "80", "--data", str(path))
    code, record, _ = pack(state_onnx(), *options, *wish)
    # So small a file only grows; what was measured of it is there all the same.
    assert (code, record["refused"][0]["check"]) == (1, "size")
    assert record["trials"][0]["metrics"]["accuracy"] >= 0.8


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("state", "expected IN=OUT"),
        ("nothing=stateN", "an input among 'x', 'state', found 'nothing'; correct --state nothing=stateN"),
        ("state=nothing", "an output among 'output', 'stateN', found 'nothing'; correct --state state=nothing"),
        ("state=output", "one shape at both ends of a state, found [2, 1, 4] and [1, 2]; correct --state state=output"),
    ],
)
def test_state_that_does_not_fit_is_one_sentence(state, expected, pack):
    shapes = ("--shape", "x=1x4", "--shape", "state=2x1x4")
    code, record, _ = pack(state_onnx(), "--target", "x86-gateway", *shapes, "--state", state)
    assert code == 1
    assert expected in record["error"]


def test_a_state_that_comes_out_as_another_type_is_refused(pack):
    from onnx import TensorProto, helper, load_model_from_string

    model = load_model_from_string(state_onnx())
    model.graph.node.append(helper.make_node("Cast", ["stateN"], ["whole"], to=TensorProto.INT32))
    model.graph.output[1].CopyFrom(helper.make_tensor_value_info("whole", TensorProto.INT32, (2, "batch", 4)))
    options = ("--shape", "x=1x4", "--shape", "state=2x1x4", "--state", "state=whole")
    code, record, _ = pack(model.SerializeToString(), "--target", "x86-gateway", *options)

    assert code == 1
    assert "expected one type at both ends of a state, found float32 and int32" in record["error"]


@pytest.mark.parametrize(
    "options", [("--prefer", "size"), ("--data", "a.npz", "--task", "b.py:task"), ("--train-graph", "optimizer=adam")]
)
def test_options_that_make_no_sense_beside_a_file_are_a_mistake_of_the_call(options, pack):
    code, record, _ = pack(linear_onnx(), "--target", "x86-gateway", *options)
    assert code == 2
    assert "--artifact" in record["error"]


def test_a_file_that_was_compiled_for_the_edge_tpu_is_packed_for_it_and_refused_elsewhere(pack):
    content = edgetpu_tflite()
    targets = ("--target", "coral-edgetpu", "--target", "android-arm64", "--target", "cortex-m7")
    code, record, out = pack(content, *targets, name="model_edgetpu.tflite")
    assert code == 1
    [artifact] = load_build(out).artifacts
    assert (artifact.target, (out / "blobs" / artifact.blob.sha256).read_bytes()) == ("coral-edgetpu", content)
    assert artifact.checks["edgetpu compiler"] == "passed"
    [told] = record["artifacts"]
    assert told["executed_by"] == {}
    assert (
        told["not_run"]["golden"]
        == told["not_run"]["accuracy"]
        == ("this machine has no Edge TPU, and nothing else runs a file that was compiled for it")
    )
    assert [refusal["check"] for refusal in record["refused"]] == ["format", "format"]
    assert record["refused"][0]["reason"] == (
        "the artifact for android-arm64 failed the check 'format': expected a file that litert runs by itself, found "
        "one that edgetpu_compiler compiled for the Edge TPU, which runs on that chip alone; give a file in the "
        "target's format or leave this target out"
    )


def test_a_compiled_file_with_operators_on_the_cpu_is_refused_by_the_edge_tpu_too(pack):
    code, record, _ = pack(edgetpu_tflite(left_to_cpu=True), "--target", "coral-edgetpu", name="m.tflite")
    assert (code, record["refused"][0]["check"]) == (1, "edgetpu compiler")
    assert "operators that run on the CPU: SOFTMAX" in record["refused"][0]["reason"]


def test_targets_check_asks_no_table_about_what_the_edge_tpus_compiler_made(tmp_path, capsys):
    (tmp_path / "m.tflite").write_bytes(edgetpu_tflite())
    main(["targets", "check", str(tmp_path / "m.tflite"), "--target", "coral-edgetpu", "--json"])
    [answer] = json.loads(capsys.readouterr().out)["targets"]
    assert (answer["fits"], answer["misfits"]) == (None, [])
    assert "what the operator edgetpu-custom-op runs inside" in answer["unknown"]["memory"]


def digits_file() -> tuple[bytes, np.ndarray]:
    """Return a linear classifier of the digits task that torch never saw, and its weight."""
    from onnx import TensorProto, helper, numpy_helper

    from hedgerow.task import load_task

    train = load_task(DIGITS).load_data().train
    [values] = train.inputs.values()
    rows = values.reshape(len(values), -1).astype(np.float64)
    weight = np.linalg.lstsq(rows, np.eye(10)[train.target_values], rcond=None)[0].astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["pixels"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["scores"]),
        ],
        "graph",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ("n", *values.shape[1:]))],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ("n", 10))],
        [numpy_helper.from_array(weight, "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return made.SerializeToString(), weight


def test_a_tasks_held_out_data_its_names_and_its_classes_are_used(pack):
    pytest.importorskip("torch")
    from hedgerow.task import load_task

    content, weight = digits_file()
    task = load_task(DIGITS)
    held_out = task.load_data().held_out
    [values] = held_out.inputs.values()
    expected = float(((values.reshape(len(values), -1) @ weight).argmax(axis=1) == held_out.target_values).mean())
    code, record, out = pack(content, "--target", "x86-gateway", "--task", DIGITS)
    assert (code, record["refused"]) == (0, [])
    assert record["artifacts"][0]["accuracy"] == pytest.approx(expected, abs=0.003)
    assert record["artifacts"][0]["held_out_samples"] == len(held_out)
    build = load_build(out)
    # The file gives raw scores, and says so: no softmax is inside.
    named = Outputs({"scores": Classes(task.answers.alone.part_names, softmax=False)})
    assert (build.task, build.model_schema.inputs, build.model_schema.answers) == ("digits", tuple(task.inputs), named)
    assert build.metrics["accuracy"] == record["artifacts"][0]["accuracy"]
    assert replayed(out) == 0.0


def test_a_task_whose_samples_have_another_layout_is_refused(pack):
    pytest.importorskip("torch")
    code, record, _ = pack(linear_onnx(), "--target", "x86-gateway", "--task", DIGITS)
    assert code == 1
    assert f"expected samples of [{FEATURES}] for the file's input 'x'" in record["error"]


def test_an_onnx_file_with_its_weights_beside_it_is_packed_whole(pack, data, tmp_path):
    import onnx

    model = onnx.load_model_from_string(linear_onnx())
    onnx.save_model(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    split = (tmp_path / "m.onnx").read_bytes()
    code, record, out = pack(split, "--target", "x86-gateway", "--data", data)
    assert (code, record["artifacts"][0]["accuracy"]) == (0, 1.0)
    assert (record["artifacts"][0]["parameters"], replayed(out)) == (3 * FEATURES, 0.0)
    (tmp_path / "m.data").unlink()
    code, record, _ = pack(split, "--target", "x86-gateway", "--data", data)
    assert code == 1
    assert "expected the file 'm.data' with weights beside the model, found none; keep its files" in record["error"]


def test_whole_numbers_that_are_no_classes_are_not_measured(pack, tmp_path):
    import onnx

    model = onnx.load_model_from_string(forest_onnx())
    [labels] = [each for each in model.graph.node[0].attribute if each.name == "classlabels_int64s"]
    labels.ints[:] = [-1, 0, 1]
    # As a detector of outliers has it: a class alone, no scores.
    del model.graph.output[1]
    values, _ = samples(40)
    path = write_samples(tmp_path / "data.npz", x=values, labels=np.arange(40) % 2)
    code, record, _ = pack(model.SerializeToString(), "--target", "x86-gateway", "--data", str(path))
    assert (code, record["artifacts"][0]["accuracy"]) == (0, None)
    said = "the output 'label' gives whole numbers that are no class from 0 to 1; give labels and a file that count"
    assert record["artifacts"][0]["not_run"]["accuracy"].startswith(said)


def test_a_forest_with_classes_in_words_is_packed_without_them(pack, tmp_path):
    import onnx

    model = onnx.load_model_from_string(forest_onnx())
    [labels] = [each for each in model.graph.node[0].attribute if each.name == "classlabels_int64s"]
    model.graph.node[0].attribute.remove(labels)
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("classlabels_strings", ["a", "b", "c"]))
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.STRING
    values, _ = samples(40)
    tree = np.where(values[:, 0] <= 0, 0, np.where(values[:, 1] <= 0, 1, 2))
    path = write_samples(tmp_path / "data.npz", x=values, labels=tree)
    code, record, _ = pack(model.SerializeToString(), "--target", "x86-gateway", "--data", str(path))
    assert (code, record["artifacts"][0]["accuracy"]) == (0, 1.0)
    assert "'label' is text" in record["artifacts"][0]["not_run"]["all outputs"]
    assert record["artifacts"][0]["peak_memory_bytes"] == 4 * FEATURES + 12


def test_a_file_that_gives_nan_is_told_so_and_not_quantized(pack, data):
    from onnx import helper, load_model_from_string

    model = load_model_from_string(linear_onnx())
    # The root of what is below zero.
    model.graph.node[0].output[0] = "product"
    model.graph.node.insert(1, helper.make_node("Sqrt", ["product"], ["m"]))
    code, record, _ = pack(model.SerializeToString(), "--target", "x86-gateway", "--data", data)
    assert (code, record["trials"]) == (1, [])
    [refused] = record["refused"]
    assert refused["check"] == "golden"
    assert "expected finite outputs of the golden samples, found NaN or infinity" in refused["reason"]


def test_a_file_in_float16_is_packed_and_not_quantized(pack, data):
    import onnx

    model = onnx.load_model_from_string(linear_onnx())
    [weight] = model.graph.initializer
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight).astype(np.float16), "w"))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    half = model.SerializeToString()
    code, record, _ = pack(half, "--target", "x86-gateway", "--data", data)
    assert (code, record["artifacts"][0]["recipe"]) == (0, "third-party")
    code, record, _ = pack(half, "--target", "x86-gateway", "--recipe", "x86-gateway=onnx-int8-s8s8", "--data", data)
    [refused] = record["refused"]
    assert refused["reason"] == (
        "onnx-int8-s8s8: expected a file whose weights are float32, found most of them in float16; give the float file"
    )
