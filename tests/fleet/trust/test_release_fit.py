"""Each misfit of a build is an error that names both sides."""

import re
from dataclasses import replace

import numpy as np
import pytest

from hedgerow.compile.build import Build, save_build
from hedgerow.compile.golden import encode_golden
from hedgerow.features import input_features
from hedgerow.fleet.errors import ReleaseError
from hedgerow.fleet.trust.release_fit import check_fit
from hedgerow.manifest.content import Tensor
from hedgerow.manifest.preparation import Preparation
from hedgerow.outputs import NO_OUTPUTS, Classes, Custom, Labels, Outputs, Reconstruction, Tokens, Values
from hedgerow.reference import FeatureReference, Reference, build_reference
from hedgerow.schema import TensorSpec
from hedgerow.weights import encode_arrays
from tests.fleet.sample_release import REFERENCE, SCHEMA, golden_samples, make_artifact, put_blob
from tests.root.documents import GRAPH

RNG = np.random.default_rng(0)
OF_THREE = Outputs.of(Classes(("a", "b", "c")))
IMAGES = RNG.normal(size=(50, 1, 8, 8)).astype(np.float32)


def reference(*, labels=("no", "yes"), without=None, extra=None):
    numeric = {**input_features(SCHEMA, {"image": IMAGES}), "output.confidence": RNG.uniform(0.5, 1, 50)}
    numeric.pop(without, None)
    numeric |= {extra: RNG.normal(size=50)} if extra else {}
    classes = (np.arange(50.0) % len(labels)).astype(np.float64)
    return build_reference(numeric, {"output.label": (classes, labels)}).encode()


def reference_of(outputs: Outputs, given, *, without=None):
    """What is watched of images, and of *outputs* by the answers *given*."""
    columns = {**input_features(SCHEMA, {"image": IMAGES}), **outputs.features(given)}
    columns.pop(without, None)
    categories = {name: (columns.pop(name), names) for name, names in outputs.categories().items() if name in columns}
    return build_reference(columns, categories).encode()


@pytest.fixture
def make(tmp_path):
    def make(*, reference=REFERENCE, golden=None, schema=SCHEMA, content=b"file", **artifact):
        golden = golden_samples() if golden is None else golden
        made = replace(make_artifact(tmp_path, "raspberry-pi-4", content, golden=golden), **artifact)
        build = Build(
            task="digits",
            model_schema=schema,
            artifacts=(made,),
            train_graphs=(),
            reference=put_blob(tmp_path, reference),
            checkpoint_sha256="ab" * 32,
            run="r",
            data_fingerprint="d",
            metrics={},
            parent=None,
        )
        save_build(tmp_path, build)
        return build, tmp_path

    return make


def test_a_build_whose_parts_fit_is_accepted(make):
    check_fit(*make())
    check_fit(*make(reference=reference()))
    check_fit(*make(reference=reference(), inputs=(Tensor("image", "x", (1, 64), "int8", 0.1),)))


def golden(inputs=None, outputs=None, **names):
    images = np.zeros((2, 1, 8, 8), np.float32) if inputs is None else inputs
    probabilities = np.full((2, 2), 0.5, np.float32) if outputs is None else outputs
    return encode_golden({names.get("input", "image"): images}, {names.get("output", "probabilities"): probabilities})


def test_golden_samples_hold_what_is_missing_where_it_may_be(make):
    image = np.zeros((2, 1, 8, 8), np.float32)
    image[0, 0, 3, 4] = np.nan
    missing = replace(SCHEMA, inputs=(replace(SCHEMA.inputs[0], missing=True),))
    known = Reference.decode(reference())
    known = Reference((*known.features, FeatureReference("image.gaps", (), (50,))))

    check_fit(*make(schema=missing, golden=golden(image), reference=known.encode()))
    with pytest.raises(ReleaseError, match="NaN or infinity"):
        check_fit(*make(golden=golden(image)))
    image[0, 0, 3, 4] = np.inf
    with pytest.raises(ReleaseError, match="NaN or infinity"):
        check_fit(*make(schema=missing, golden=golden(image), reference=known.encode()))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"golden": golden(input="picture")}, ["golden samples for raspberry-pi-4", "input.image", "input.picture"]),
        ({"golden": golden(np.zeros((2, 8, 8), np.float32))}, ["float32[n, 1, 8, 8]", "float32[2, 8, 8]"]),
        ({"golden": golden(np.zeros((2, 1, 8, 8), np.uint8))}, ["float32[n, 1, 8, 8]", "uint8[2, 1, 8, 8]"]),
        ({"golden": golden(outputs=np.zeros((2, 3), np.float32))}, ["float32[n, 2]", "float32[2, 3]"]),
        ({"golden": golden(outputs=np.full((2, 2), np.nan, np.float32))}, ["output.probabilities", "NaN"]),
        ({"golden": golden(outputs=np.zeros((3, 2), np.float32))}, ["as many samples", "[2, 3]"]),
        ({"golden": golden(np.zeros((0, 1, 8, 8), np.float32), np.zeros((0, 2), np.float32))}, ["at least one", "[0]"]),
        ({"golden": b"no samples"}, ["a safetensors document"]),
        ({"reference": b"{}"}, ["the reference of"]),
        ({"reference": reference(without="image.mean")}, ["without image.mean"]),
        ({"reference": reference(extra="sound.mean")}, ["beside them sound.mean"]),
        ({"reference": reference(labels=("no", "maybe"))}, ["2 names (no, yes) of output.label", "2 (maybe, no)"]),
        (
            {"reference": reference(labels=("no", "yes", "maybe"))},
            ["2 names (no, yes) of output.label", "3 (maybe, no, yes)"],
        ),
        ({"schema": replace(SCHEMA, answers=OF_THREE)}, ["classes of the shape [3] in probabilities", "[2]"]),
        ({"inputs": (Tensor("sound", "x", (1, 64), "float32"),)}, ["the schema's inputs image", "sound"]),
        ({"inputs": (Tensor("image", "x", (1, 65), "float32"),)}, ["64 numbers a sample", "[1, 65]"]),
        ({"outputs": ()}, ["the schema's outputs probabilities", "none"]),
        ({"outputs": (Tensor("probabilities", "y", (-1, 3), "int8"),)}, ["2 numbers a sample", "[-1, 3]"]),
    ],
)
def test_a_misfit_names_both_sides(make, changes, words):
    with pytest.raises(ReleaseError) as caught:
        check_fit(*make(**changes))
    for word in words:
        assert word in str(caught.value)


def onnx_file(*, width=2, inputs=1, name=None):
    from onnx import TensorProto, helper

    names = ["image", "sound"][:inputs] if name is None else [name]
    images = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, 8, 8]) for name in names]
    nodes = [helper.make_node("Flatten", names[:1], ["flat"])]
    shape = helper.make_tensor("shape", TensorProto.FLOAT, [64, width], [0.0] * 64 * width)
    nodes.append(helper.make_node("MatMul", ["flat", "shape"], ["y"]))
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", width])
    graph = helper.make_graph(nodes, "g", images, [output], [shape])
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10).SerializeToString()


@pytest.mark.heavy
def test_the_border_of_a_file_is_read_and_compared_without_running_it(make):
    check_fit(*make(content=onnx_file(), format="onnx"))
    for content, words in (
        (onnx_file(width=3), ["outputs of 8 bytes in the file, as the manifest says", "found 12 bytes"]),
        (onnx_file(inputs=2), ["1 inputs in the file (image)", "found 2"]),
        (onnx_file(name="picture"), ["an input among picture for the input image"]),
        (b"no model", ["the artifact for raspberry-pi-4"]),
    ):
        with pytest.raises(ReleaseError) as caught:
            check_fit(*make(content=content, format="onnx"))
        for word in words:
            assert word in str(caught.value)


def test_a_build_that_lacks_a_file_says_which(make):
    build, folder = make()
    (folder / "blobs" / build.reference.sha256).unlink()
    with pytest.raises(ReleaseError, match=build.reference.sha256):
        check_fit(build, folder)


def test_an_output_of_other_floats_is_the_runtimes_business_and_an_input_is_not(make):
    check_fit(*make(golden=golden(outputs=np.full((2, 2), 0.5, np.float16))))
    with pytest.raises(ReleaseError, match="float16"):
        check_fit(*make(golden=golden(np.zeros((2, 1, 8, 8), np.float16))))


def test_of_a_model_of_which_nobody_has_said_what_it_gives_only_inputs_are_watched(make):
    """A device counts nothing else of it, and could not count a window with more in it."""
    schema = replace(SCHEMA, answers=NO_OUTPUTS)
    inputs = reference_of(NO_OUTPUTS, {})
    check_fit(*make(schema=schema, reference=inputs))
    with pytest.raises(ReleaseError, match=r"beside them output\.confidence, output\.label"):
        check_fit(*make(schema=schema, reference=reference()))


KINDS = {
    "labels": Labels(("hot", "wet")),
    "values": Values(("level", "flow"), tolerance=1.0),
    "reconstruction": Reconstruction(threshold=2.0),
    "tokens": Tokens(("lo", "hi"), positions=3),
    "custom": Custom((2, 2)),
    "several": {"state": Classes(("a", "b")), "level": Values("level", tolerance=1.0)},
}


def of_kind(tmp_path, kind):
    """Return the schema, what its artifact gives and golden samples of a kind of output."""
    outputs = Outputs.of(KINDS[kind])
    schema = replace(SCHEMA, outputs=outputs.tensors(), answers=outputs)
    given = {spec.name: RNG.random((50, *spec.shape)).astype(np.float32) for spec in schema.outputs}
    tensors = tuple(Tensor(spec.name, spec.name, (-1, *spec.shape), "float32") for spec in schema.outputs)
    samples = encode_golden({"image": IMAGES[:2]}, {name: values[:2] for name, values in given.items()})
    return outputs, given, {"schema": schema, "outputs": tensors, "golden": samples}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_watched_of_each_kind_of_output_fits_its_record(make, tmp_path, kind):
    outputs, given, parts = of_kind(tmp_path, kind)
    feature = min(outputs.features(given))

    check_fit(*make(reference=reference_of(outputs, given), **parts))
    with pytest.raises(ReleaseError, match=re.escape(f"without {feature}, beside them none")):
        check_fit(*make(reference=reference_of(outputs, given, without=feature), **parts))


@pytest.mark.parametrize("kind", KINDS)
def test_a_train_graph_wants_target_values_of_outputs_that_there_are(make, tmp_path, kind):
    outputs, given, parts = of_kind(tmp_path, kind)
    build, folder = make(reference=reference_of(outputs, given), **parts)
    targets = tuple(
        Tensor(name, f"target.{name}", (16, *o.target_shape), o.target_dtype) for name, o in outputs.items()
    )

    check_fit(replace(build, train_graphs=(replace(GRAPH, targets=targets),)), folder)
    others = (*targets, Tensor("mood", "target.mood", (16,), "int64"))
    with pytest.raises(ReleaseError, match=r"train graph for .* expected target values of the outputs .* found mood"):
        check_fit(replace(build, train_graphs=(replace(GRAPH, targets=others),)), folder)


def test_a_state_that_differs_at_its_ends_in_the_file_is_refused(make):
    schema = replace(
        SCHEMA,
        inputs=(*SCHEMA.inputs, TensorSpec("h", (2, 1, 4))),
        outputs=(*SCHEMA.outputs, TensorSpec("h_next", (2, 1, 4))),
        state={"h": "h_next"},
    )
    (image,), (answer,) = ((Tensor("image", "image", (1, 1, 8, 8), "float32"),), make()[0].artifacts[0].outputs)

    def tensors(dtype, scale):
        taken = (image, Tensor("h", "h", (2, 1, 4), "int8", 0.5, 3))
        return {"inputs": taken, "outputs": (answer, Tensor("h_next", "h_next", (2, 1, 4), dtype, scale))}

    with pytest.raises(ReleaseError) as caught:
        check_fit(*make(schema=schema, golden=None, **tensors("float32", None)))
    assert "expected one shape and one dtype at both ends of a state" in str(caught.value)
    assert "found int8[2, 1, 4] as h and float32[2, 1, 4] as h_next" in str(caught.value)

    # With one type the next thing is looked at: these golden samples have no state.
    with pytest.raises(ReleaseError, match=r"input\.h, input\.image, output\.h_next"):
        check_fit(*make(schema=schema, **tensors("int8", 0.25)))


def test_state_goes_past_what_prepares_samples(make):
    build, _folder = make()
    (artifact,) = build.artifacts
    schema = replace(
        SCHEMA,
        inputs=(*SCHEMA.inputs, TensorSpec("h", (1, 4))),
        outputs=(*SCHEMA.outputs, TensorSpec("h_next", (1, 4))),
        state={"h": "h_next"},
    )
    prepared, state = Tensor("prepared_0", "x", (1, 64), "int8", 0.1), Tensor("h", "h", (1, 4), "int8", 0.1)
    prepare = Preparation(
        blob=artifact.blob,
        source=artifact.blob,
        inputs=(Tensor("image", "image", (1, 1, 8, 8), "float32"),),
        outputs=(Tensor("prepared_0", "o", (1, 64), "float32"),),
    )
    images = np.zeros((2, 1, 8, 8), np.float32)
    samples = {
        "input.image": images,
        "input.h": np.zeros((2, 1, 4), np.float32),
        "output.probabilities": np.full((2, 2), 0.5, np.float32),
        "output.h_next": np.zeros((2, 1, 4), np.float32),
    }
    parts = {
        "schema": schema,
        "golden": encode_arrays(samples),
        "inputs": (prepared, state),
        "outputs": (*artifact.outputs, replace(state, name="h_next")),
        "prepare": prepare,
        "format": "mlpackage",
    }

    check_fit(*make(**parts))
    with pytest.raises(ReleaseError, match="expected inputs as they are prepared"):
        check_fit(*make(**{**parts, "inputs": (replace(prepared, shape=(1, 63)), state)}))
