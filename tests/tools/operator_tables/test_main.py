"""The tables that are here are those that the runtimes give, and each kind that they judge really runs, or does not."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("ai_edge_litert")

from tools.operator_tables import tflite_layers, tflite_shapes, tflite_signal
from tools.operator_tables.__main__ import FOLDER, TABLES, main
from tools.operator_tables.onnx_models import cases, model_of
from tools.operator_tables.onnx_table import run_onnx
from tools.operator_tables.running import run_apart
from tools.operator_tables.tflite_runs import run_litert, run_micro

from hedgerow.compile.inspection.model import model_facts, read_facts
from hedgerow.hardware.fit import Misfit, fit
from hedgerow.hardware.lookup import load_target

pytestmark = pytest.mark.heavy

CORE, PHONE, GATEWAY = load_target("cortex-m7"), load_target("android-arm64"), load_target("x86-gateway")
SETS = {"": 20, "ai.onnx.ml": 3, "com.microsoft": 1}
# What a use is refused by, whatever all else in a file of one operator.
OF_USES = {"operators", "operator versions", "number types", "ranks"}
needs_mcu = pytest.mark.usefixtures("interpreter")


@pytest.fixture
def interpreter():
    pytest.importorskip("tflite_micro")


@pytest.mark.parametrize("name", sorted(TABLES))
def test_the_table_is_what_the_runtime_gives(name, capsys):
    pytest.importorskip(TABLES[name][0])
    before = (FOLDER / f"{name}.toml").read_text()
    code = main([name, "--check"])
    said = capsys.readouterr().out
    assert code == 0, said
    assert said.startswith(f"{name}: as it was")
    assert (FOLDER / f"{name}.toml").read_text() == before


def test_a_table_that_differs_is_told_and_left_alone(tmp_path, monkeypatch, capsys):
    from tools.operator_tables import __main__ as command
    from tools.operator_tables.table import Table

    made = Table(source="x", versions={"ADD": 3})
    monkeypatch.setattr(command, "FOLDER", tmp_path)
    monkeypatch.setattr(command, "TABLES", {"one": ("json", lambda: made), "two": ("no_such_package", lambda: made)})
    (tmp_path / "one.toml").write_text('schema_version = 1\nsource = """\\\nx"""\n\n[versions]\nADD = 2\n')
    logged = logging.root.manager.disable
    assert command.main(["--check"]) == 1
    assert logging.root.manager.disable == logged
    said = capsys.readouterr().out
    assert "-ADD = 2" in said
    assert "+ADD = 3" in said
    assert "two: not run: no_such_package is not installed" in said
    assert "ADD = 2" in (tmp_path / "one.toml").read_text()
    assert command.main([]) == 0
    assert "ADD = 3" in (tmp_path / "one.toml").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["one.toml"]


def judged(target, kind: str, content: bytes) -> list[Misfit]:
    facts = read_facts(kind, content)
    return [misfit for misfit in fit(target, model_facts(kind, len(content), facts)) if misfit.check in OF_USES]


def ran(run: Callable[[bytes], None], content: bytes) -> bool:
    """Say whether a file runs, in a process of its own."""
    return run_apart(lambda _place: run(content), 1) == [""]


def tflite(run: Callable[[bytes], None], name: str, types: str) -> bytes:
    """Return a file of a use that a runtime runs, or the last one that was tried where it runs none."""
    found = [
        content
        for operator, content in (*tflite_shapes.files(), *tflite_layers.files(), *tflite_signal.files())
        if operator == name
        and any(use.name == name and use.types == types for use in read_facts("tflite", content).uses)
    ]
    outcomes = run_apart(lambda place: run(found[place]), len(found))
    return next((content for content, said in zip(found, outcomes, strict=True) if not said), found[-1])


@needs_mcu
@pytest.mark.parametrize(
    ("name", "types"),
    [
        ("UNIDIRECTIONAL_SEQUENCE_LSTM", "int8"),
        ("UNIDIRECTIONAL_SEQUENCE_LSTM", "int16/int8"),
        ("CONV_2D", "int16/int8"),
        ("FULLY_CONNECTED", "int16/int8"),
        ("SOFTMAX", "int16"),
        ("SVDF", "int8"),
        *((name, "int16") for name in ("SignalDelay", "SignalEnergy", "SignalFftAutoScale", "SignalFramer")),
        *(
            (name, "int16")
            for name in ("SignalIrfft", "SignalOverlapAdd", "SignalRfft", "SignalStacker", "SignalWindow")
        ),
        *((f"SignalFilterBank{name}", "uint32") for name in ("", "Log", "SpectralSubtraction")),
        ("SignalFilterBankSquareRoot", "uint64"),
        ("SignalPCAN", "uint32"),
        ("VAR_HANDLE", ""),
    ],
)
def test_what_microcontrollers_run_is_no_longer_refused(name, types):
    content = tflite(run_micro, name, types)
    assert ran(run_micro, content)
    assert judged(CORE, "tflite", content) == []


@needs_mcu
@pytest.mark.parametrize(
    ("name", "types", "check"),
    [
        ("GELU", "int8", "operators"),
        ("TILE", "int8", "operators"),
        ("FULLY_CONNECTED", "int8/uint8", "number types"),
        ("GATHER", "int16", "number types"),
    ],
)
def test_what_microcontrollers_do_not_run_is_refused_by_name(name, types, check):
    content = tflite(run_micro, name, types)
    assert not ran(run_micro, content)
    [misfit] = judged(CORE, "tflite", content)
    assert (misfit.check, misfit.names) == (check, (name,))


@needs_mcu
def test_a_rank_that_microcontrollers_do_not_run_is_refused_and_the_one_below_is_not():
    for rank, runs in ((5, True), (6, False)):
        [content] = [
            content
            for name, content in tflite_shapes.files()
            if name == "TRANSPOSE"
            and any((use.types, use.rank) == ("int8", rank) for use in read_facts("tflite", content).uses)
        ]
        assert ran(run_micro, content) is runs
        assert [misfit.check for misfit in judged(CORE, "tflite", content)] == ([] if runs else ["ranks"])


@pytest.mark.parametrize(
    ("name", "types"), [("SVDF", "int8"), ("SVDF", "int16"), ("UNIDIRECTIONAL_SEQUENCE_LSTM", "int16/int8")]
)
def test_what_litert_cannot_run_does_not_fit_a_phone(name, types):
    """The first ends LiteRT's process; the others it refuses while it loads them."""
    content = tflite(run_litert, name, types)
    assert not ran(run_litert, content)
    assert [(misfit.check, misfit.names) for misfit in judged(PHONE, "tflite", content)] == [("number types", (name,))]


@pytest.mark.parametrize("types", ["float32", "float32/int8", "int8/int16"])
def test_what_litert_runs_of_the_same_operator_fits(types):
    content = tflite(run_litert, "SVDF", types)
    assert ran(run_litert, content)
    assert judged(PHONE, "tflite", content) == []


def test_a_file_that_aborts_litert_and_runs_on_a_microcontroller_is_judged_so():
    scrambled = (Path(__file__).parents[2] / "client" / "keyword_scrambled_8bit.tflite").read_bytes()
    assert not ran(run_litert, scrambled)
    assert [(misfit.check, misfit.names) for misfit in judged(PHONE, "tflite", scrambled)] == [
        ("number types", ("SVDF",))
    ]
    pytest.importorskip("tflite_micro")
    assert ran(run_micro, scrambled)
    assert judged(CORE, "tflite", scrambled) == []


@pytest.mark.parametrize(
    ("domain", "name"),
    [
        ("", "If"),
        ("", "LSTM"),
        ("", "Loop"),
        ("com.microsoft", "DynamicQuantizeLSTM"),
        ("com.microsoft", "Attention"),
        ("ai.onnx.ml", "TreeEnsembleClassifier"),
        ("ai.onnx.ml", "TreeEnsembleRegressor"),
        ("ai.onnx.ml", "LinearClassifier"),
        ("ai.onnx.ml", "Scaler"),
        ("ai.onnx.ml", "Normalizer"),
    ],
)
def test_what_onnx_runtime_runs_is_no_longer_refused(domain, name):
    runs = []
    for case in cases()[(domain, name)]:
        content = model_of(case, SETS)
        others = {each: given for each, (_value, given) in case.others.items()}
        if content is not None and ran(lambda each, others=others: run_onnx(each, others), content):
            runs.append(content)
    assert runs
    # Another case may hold a number type that the target does not take.
    assert [] in [judged(GATEWAY, "onnx", content) for content in runs]


def test_what_onnx_runtime_has_no_kernel_for_is_refused_by_its_type():
    from onnx import TensorProto, helper

    def square(kind: int) -> bytes:
        values = [helper.make_tensor_value_info(name, kind, [2, 3]) for name in "xy"]
        graph = helper.make_graph([helper.make_node("Softmax", ["x"], ["y"])], "g", values[:1], values[1:])
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9).SerializeToString()

    def run(content: bytes, kind: type) -> Callable[[bytes], None]:
        return lambda each: run_onnx(each, {"x": np.ones((2, 3), kind)})

    assert ran(run(square(TensorProto.FLOAT), np.float32), square(TensorProto.FLOAT))
    assert judged(GATEWAY, "onnx", square(TensorProto.FLOAT)) == []
    assert ran(run(square(TensorProto.DOUBLE), np.float64), square(TensorProto.DOUBLE))
    assert judged(GATEWAY, "onnx", square(TensorProto.DOUBLE)) == []
    pooled = helper.make_graph(
        [helper.make_node("GlobalAveragePool", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [1, 2, 3, 3])],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, [1, 2, 1, 1])],
    )
    content = helper.make_model(pooled, opset_imports=[helper.make_opsetid("", 20)], ir_version=9).SerializeToString()
    assert not ran(lambda each: run_onnx(each, {"x": np.ones((1, 2, 3, 3))}), content)
    assert [(misfit.check, misfit.names) for misfit in judged(GATEWAY, "onnx", content)] == [
        ("number types", ("GlobalAveragePool",))
    ]


def test_an_operator_of_an_unknown_domain_is_refused_under_its_whole_name():
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], domain="acme")], "g", values[:1], values[1:])
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("acme", 1)]).SerializeToString()
    assert [misfit.names for misfit in judged(GATEWAY, "onnx", content)] == [("acme.Relu",)]
