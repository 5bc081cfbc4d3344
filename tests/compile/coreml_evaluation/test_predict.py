"""The reference evaluation of Core ML programs, against torch in float32.

The programs compute in float16, which has 11 significant bits: one rounding is at most 1/2048 of a value. Over the
depth of these networks probabilities stay within 2e-3 of torch's and 60 dB of signal to noise remain.
"""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
ct = pytest.importorskip("coremltools")

from coremltools.converters.mil import Builder as mb  # noqa: E402, N813 - needs coremltools, which calls it so
from torch import nn  # noqa: E402

from hedgerow.compile.coreml_evaluation.evaluate import UnknownOperator, predict_coreml  # noqa: E402
from hedgerow.compile.errors import VerificationError  # noqa: E402
from hedgerow.compile.foundation import Foundation, Workbench  # noqa: E402
from hedgerow.compile.passes.coreml.export import ExportCoreml  # noqa: E402
from hedgerow.compile.passes.coreml.package import packed  # noqa: E402
from hedgerow.compile.passes.runner import run_file_pass  # noqa: E402
from hedgerow.compile.recipes import RECIPES  # noqa: E402
from hedgerow.compile.scoring import signal_to_noise_db  # noqa: E402
from hedgerow.compile.units import compile_artifact  # noqa: E402
from hedgerow.durable import sha256_of  # noqa: E402
from hedgerow.errors import DecodeError  # noqa: E402
from hedgerow.hardware import load_target  # noqa: E402
from hedgerow.progress import silent  # noqa: E402
from hedgerow.task_module import predict  # noqa: E402
from tests.compile.nets import Transformer, depthwise, make_source, resnet8  # noqa: E402
from tests.compile.only import only  # noqa: E402

RECIPE = RECIPES["coreml-int8-weights"]

pytestmark = [
    pytest.mark.heavy,
    # coremltools and torch call deprecated parts of each other, and leave temporary files to the collector.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

IOS17 = {"minimum_version": "iOS17"}


@pytest.mark.parametrize("make", [resnet8, depthwise, Transformer])
def test_a_network_gives_what_torch_gives_within_float16(make):
    source = make_source(make)
    stage = run_file_pass(ExportCoreml(**IOS17), source, None)
    inputs = source.calibration.inputs
    wanted = only(predict(source.task, source.model, inputs))
    found = only(predict_coreml(stage.content, inputs))
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() < 2e-3
    assert signal_to_noise_db(wanted, found) > 60
    # One sample gives what it gives among others, up to one rounding.
    one = only(predict_coreml(stage.content, {"x": inputs["x"][5:6]}))
    assert np.abs(one - found[5:6]).max() < 2e-3


LAYERS = {
    "transposed conv": lambda: nn.ConvTranspose2d(3, 4, 3),
    "transposed conv, stride and border": lambda: nn.ConvTranspose2d(3, 4, 3, 2, padding=1, output_padding=1),
    "transposed conv, groups and holes": lambda: nn.ConvTranspose2d(3, 3, 3, groups=3, dilation=2),
    "nearest": lambda: nn.Upsample(scale_factor=(2, 3)),
    "bilinear": lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
    "bilinear, corners": lambda: nn.Upsample(size=(9, 11), mode="bilinear", align_corners=True),
    "reflected border": lambda: nn.ReflectionPad2d((1, 2, 0, 1)),
    "repeated border": lambda: nn.ReplicationPad2d(2),
    "prelu": lambda: nn.PReLU(3),
    "signal, transposed conv": lambda: nn.ConvTranspose1d(3, 4, 4, 2, padding=1),
    "signal, linear": lambda: nn.Upsample(scale_factor=2, mode="linear"),
    "signal, reflected border": lambda: nn.ReflectionPad1d(2),
    "signal, largest": lambda: nn.MaxPool1d(2),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_gives_what_torch_gives_within_float16(name):
    shape = (3, 12) if name.startswith("signal") else (3, 6, 5)
    source = make_source(lambda: nn.Sequential(LAYERS[name](), nn.Flatten(), nn.LazyLinear(3)), shape)
    stage = run_file_pass(ExportCoreml(**IOS17), source, None)
    inputs = source.calibration.inputs
    wanted = only(predict(source.task, source.model, inputs))
    found = only(predict_coreml(stage.content, inputs))
    assert np.abs(found - wanted).max() < 2e-3
    assert signal_to_noise_db(wanted, found) > 50


@pytest.fixture(scope="module")
def foundation(digits, digits_checkpoint) -> Foundation:
    return Workbench().foundation(digits, digits_checkpoint, sha256_of(digits_checkpoint / "weights.safetensors"))


def test_the_float_program_of_the_digits_task_agrees_with_torch(foundation):
    stage = run_file_pass(ExportCoreml(**IOS17), foundation.source, None)
    found = only(predict_coreml(stage.content, foundation.data.held_out.inputs))
    assert np.abs(found - foundation.float_answers["probabilities"]).max() < 2e-3
    assert signal_to_noise_db(foundation.float_answers["probabilities"], found) > 60


def test_the_artifact_for_a_phone_is_checked_like_the_others(foundation, tmp_path):
    compiled = compile_artifact(foundation, load_target("iphone-15"), RECIPE, tmp_path, max_drop=0.015, report=silent)
    artifact = compiled.artifact
    assert artifact.metrics["accuracy"] >= artifact.metrics["float_accuracy"] - 0.015
    assert artifact.golden is not None
    assert {name for name, state in artifact.checks.items() if state != "passed"} == {"latency", "runs on device"}
    assert artifact.checks["runs on device"] == "not run"
    assert sorted(compiled.not_run) == ["latency", "runs on device"]
    assert len(compiled.evaluation["classes"]) == 10


def test_a_phone_gets_no_artifact_that_lost_its_accuracy(foundation, tmp_path):
    broken = replace(foundation, sources={}, stages={}, made={}, executed={})
    with torch.no_grad():
        head = next(layer for layer in foundation.source.model.modules() if isinstance(layer, nn.Linear))
        before = head.weight.clone()
        head.weight.copy_(before.flip(0))
    try:
        with pytest.raises(VerificationError) as caught:
            compile_artifact(broken, load_target("iphone-15"), RECIPE, tmp_path, max_drop=0.015, report=silent)
    finally:
        with torch.no_grad():
            head.weight.copy_(before)
    assert caught.value.check == "accuracy"


def program(build, *shapes: tuple[int, ...]) -> bytes:
    """Return a float32 package of a function in Core ML's own language."""
    specs = [mb.TensorSpec(shape=(1, *shape)) for shape in shapes]
    made = mb.program(input_specs=specs, opset_version=ct.target.iOS17)(build)
    model = ct.convert(
        made,
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS17,
        compute_precision=ct.precision.FLOAT32,
        skip_model_load=True,
    )
    return packed(model)


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(5, *shape)).astype(np.float32)


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (
            lambda x: mb.upsample_nearest_neighbor(x=x, scale_factor_height=1.5, scale_factor_width=2.0),
            "upsample_nearest_neighbor by a factor that is no whole number",
        ),
        (
            lambda x: mb.upsample_bilinear(
                x=x, scale_factor_height=1.5, scale_factor_width=1.5, align_corners=False, half_pixel_centers=True
            ),
            "upsample_bilinear by a factor that is no whole number",
        ),
        (
            lambda x: mb.upsample_bilinear(
                x=x, scale_factor_height=2, scale_factor_width=2, align_corners=False, half_pixel_centers=False
            ),
            "upsample_bilinear with neither aligned corners nor centred pixels",
        ),
    ],
)
def test_where_a_place_looks_that_is_documented_nowhere_is_not_guessed(build, reason):
    found = only(predict_coreml(program(build, (4, 6, 6)), {"x": drawn(4, 6, 6)}))
    assert isinstance(found, UnknownOperator)
    assert found.reason == f"the reference evaluation does not know {reason}"


WEIGHT = np.random.default_rng(1).normal(size=(4, 1, 3, 3)).astype(np.float32)
FORMS = {
    "a strided, dilated, grouped convolution": (
        lambda x: mb.conv(
            x=x, weight=WEIGHT, strides=[2, 1], dilations=[1, 2], groups=4, pad_type="custom", pad=[1, 0, 2, 2]
        ),
        lambda x: nn.functional.conv2d(
            nn.functional.pad(x, (2, 2, 1, 0)), torch.from_numpy(WEIGHT), None, (2, 1), 0, (1, 2), 4
        ),
    ),
    "a convolution whose size stays": (
        lambda x: mb.conv(x=x, weight=WEIGHT, groups=4, pad_type="same"),
        lambda x: nn.functional.conv2d(x, torch.from_numpy(WEIGHT), padding=1, groups=4),
    ),
    "a maximum pool in ceil mode": (
        lambda x: mb.max_pool(x=x, kernel_sizes=[3, 3], strides=[2, 2], pad_type="valid", ceil_mode=True),
        lambda x: nn.functional.max_pool2d(x, 3, 2, ceil_mode=True),
    ),
    "an average pool that leaves its padding out": (
        lambda x: mb.avg_pool(
            x=x, kernel_sizes=[3, 3], strides=[2, 2], pad_type="custom", pad=[1, 1, 1, 1],
            exclude_padding_from_average=True,
        ),
        lambda x: nn.functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    ),
    "an average pool that counts its padding": (
        lambda x: mb.avg_pool(x=x, kernel_sizes=[3, 3], pad_type="custom", pad=[1, 1, 1, 1]),
        lambda x: nn.functional.avg_pool2d(x, 3, 1, 1),
    ),
    "slices from either end": (
        lambda x: mb.slice_by_index(
            x=x, begin=[0, 1, -3, 0], end=[1, 4, -1, 0], stride=[1, 2, 1, 1],
            begin_mask=[True, False, False, True], end_mask=[True, False, False, True],
        ),
        lambda x: x[:, 1:4:2, -3:-1],
    ),
    "a layer norm over two axes": (
        lambda x: mb.layer_norm(x=x, axes=[2, 3], epsilon=1e-3),
        lambda x: nn.functional.layer_norm(x, x.shape[2:], eps=1e-3),
    ),
    "parts, turned and joined": (
        lambda x: mb.concat(
            values=mb.split(x=mb.transpose(x=x, perm=[0, 2, 3, 1]), num_splits=2, axis=3)[::-1], axis=1
        ),
        lambda x: torch.cat(x.permute(0, 2, 3, 1).chunk(2, 3)[::-1], 1),
    ),
    "sums and the activations of mobile networks": (
        lambda x: mb.add(
            x=mb.reduce_sum(x=mb.sigmoid_hard(x=x, alpha=1 / 6, beta=0.5), axes=[2, 3], keep_dims=True),
            y=mb.mul(x=mb.clip(x=x, alpha=-1.0, beta=1.0), y=mb.gelu(x=x, mode="TANH_APPROXIMATION")),
        ),
        lambda x: nn.functional.hardsigmoid(x).sum((2, 3), keepdim=True)
        + x.clamp(-1, 1) * nn.functional.gelu(x, approximate="tanh"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", sorted(FORMS))
def test_an_operator_means_what_torch_means(form):
    build, wanted = FORMS[form]
    x = drawn(4, 8, 7)
    found = only(predict_coreml(program(build, (4, 8, 7)), {"x": x}))
    np.testing.assert_allclose(found, wanted(torch.from_numpy(x)).numpy(), atol=1e-5)


def test_attention_written_as_products_means_what_torch_means():
    def attend(x, y):
        scores = mb.softmax(x=mb.matmul(x=x, y=y, transpose_y=True), axis=-1)
        return mb.matmul(x=scores, y=y)

    x, y = drawn(2, 6, 8), drawn(2, 6, 8, seed=1)
    found = only(predict_coreml(program(attend, (2, 6, 8), (2, 6, 8)), {"x": x, "y": y}))
    one, other = torch.from_numpy(x), torch.from_numpy(y)
    np.testing.assert_allclose(found, (torch.softmax(one @ other.mT, -1) @ other).numpy(), atol=1e-5)


def test_an_operator_that_is_not_known_is_named_and_nothing_is_evaluated():
    content = program(lambda x: mb.local_response_norm(x=x, size=3), (4, 8, 8))
    found = only(predict_coreml(content, {"x": drawn(4, 8, 8)}))
    assert isinstance(found, UnknownOperator)
    assert found.names == ("local_response_norm",)
    assert "local_response_norm" in found.reason


def test_a_known_operator_in_an_unknown_form_is_named_too():
    content = program(lambda x: mb.cumsum(x=x, axis=1, reverse=True), (4, 8))
    found = only(predict_coreml(content, {"x": drawn(4, 8)}))
    assert isinstance(found, UnknownOperator)
    assert found.names == ("cumsum",)


def test_other_inputs_and_other_bytes_are_refused():
    content = program(lambda x: mb.relu(x=x), (4,))
    with pytest.raises(ValueError, match="expected the inputs"):
        only(predict_coreml(content, {"z": drawn(4)}))
    with pytest.raises(DecodeError):
        only(predict_coreml(b"no package", {"x": drawn(4)}))
