"""Layers that move values about: each runtime, driven directly, gives what torch gives on fresh inputs."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("coremltools")
pytest.importorskip("litert_torch")

from torch import nn  # noqa: E402 - needs torch

from hedgerow.compile.coreml_evaluation.evaluate import predict_coreml  # noqa: E402
from hedgerow.compile.passes.coreml.export import ExportCoreml  # noqa: E402
from hedgerow.compile.passes.onnx.export import ExportOnnx  # noqa: E402
from hedgerow.compile.passes.runner import run_file_pass  # noqa: E402
from hedgerow.compile.passes.tflite.export import ExportTflite  # noqa: E402
from hedgerow.compile.passes.traced.moved import COREML_WORDS, TFLITE_WORDS, OtherWords  # noqa: E402
from hedgerow.task_module import ServingModule  # noqa: E402
from tests.compile.nets import make_source  # noqa: E402
from tests.compile.only import only  # noqa: E402

pytestmark = [
    pytest.mark.heavy,
    # Converters and torch call deprecated parts of each other, and leave temporary files to the collector.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

IMAGE, SIGNAL = (3, 6, 5), (3, 12)
LAYERS = {
    "transposed conv with output padding": (IMAGE, lambda: nn.ConvTranspose2d(3, 4, 3, 2, padding=1, output_padding=1)),
    "transposed conv with more output padding than border": (
        IMAGE,
        lambda: nn.ConvTranspose2d(3, 4, 3, 2, output_padding=1),
    ),
    "transposed conv 1d with output padding": (
        SIGNAL,
        lambda: nn.ConvTranspose1d(3, 4, 3, 2, padding=1, output_padding=1),
    ),
    "transposed conv with groups and holes": (IMAGE, lambda: nn.ConvTranspose2d(3, 6, 3, groups=3, dilation=2)),
    "nearest by whole factors": (IMAGE, lambda: nn.Upsample(scale_factor=(2, 3))),
    "nearest to uneven sizes": (IMAGE, lambda: nn.Upsample(size=(9, 7))),
    "nearest to fewer": (IMAGE, lambda: nn.Upsample(size=(4, 5))),
    "nearest of signals by an uneven factor": (SIGNAL, lambda: nn.Upsample(scale_factor=1.5)),
    "nearest-exact": (IMAGE, lambda: nn.Upsample(size=(9, 7), mode="nearest-exact")),
    "bilinear": (IMAGE, lambda: nn.Upsample(scale_factor=2, mode="bilinear")),
    "bilinear with aligned corners": (IMAGE, lambda: nn.Upsample(size=(9, 8), mode="bilinear", align_corners=True)),
    "circular border": (IMAGE, lambda: nn.Conv2d(3, 4, 3, padding=(2, 1), padding_mode="circular")),
    "circular border on one side": (IMAGE, lambda: nn.CircularPad2d((1, 0, 0, 2))),
    "circular border of signals": (SIGNAL, lambda: nn.Conv1d(3, 4, 5, padding=2, padding_mode="circular")),
    "reflected border": (IMAGE, lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")),
    "prelu": (IMAGE, lambda: nn.PReLU(3)),
}


def source_of(name):
    shape, layer = LAYERS[name]
    return make_source(lambda: nn.Sequential(layer(), nn.Flatten(), nn.LazyLinear(5)), shape)


def fresh(name) -> np.ndarray:
    return np.random.default_rng(7).normal(size=(6, *LAYERS[name][0])).astype(np.float32)


def by_torch(source, values: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return ServingModule(source.task, source.model).eval()(torch.from_numpy(values)).numpy()


@pytest.mark.parametrize("name", LAYERS)
def test_onnx_runtime_gives_what_torch_gives(name):
    from onnxruntime import InferenceSession

    source, values = source_of(name), fresh(name)
    content = run_file_pass(ExportOnnx(), source, None).content
    session = InferenceSession(content, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": values})
    assert np.abs(found - by_torch(source, values)).max() < 1e-6


@pytest.mark.parametrize("name", LAYERS)
def test_litert_gives_what_torch_gives(name):
    from ai_edge_litert.interpreter import Interpreter

    source, values = source_of(name), fresh(name)
    content = run_file_pass(ExportTflite(), source, None).content
    run = Interpreter(model_content=content, num_threads=1).get_signature_runner()
    found = np.concatenate([next(iter(run(args_0=value[None]).values())) for value in values])
    assert np.abs(found - by_torch(source, values)).max() < 1e-6


@pytest.mark.parametrize("name", LAYERS)
def test_core_mls_program_gives_what_torch_gives_within_float16(name):
    source, values = source_of(name), fresh(name)
    content = run_file_pass(ExportCoreml(minimum_version="iOS17"), source, None).content
    found = only(predict_coreml(content, {"x": values}))
    assert np.abs(found - by_torch(source, values)).max() < 2e-3


@pytest.mark.parametrize("words", [TFLITE_WORDS, COREML_WORDS], ids=["tflite", "coreml"])
@pytest.mark.parametrize("name", LAYERS)
def test_other_words_are_the_same_numbers(name, words):
    source, values = source_of(name), torch.from_numpy(fresh(name))
    with torch.no_grad():
        wanted = source.model(values)
        with OtherWords(words):
            found = source.model(values)
    assert torch.allclose(found, wanted, atol=1e-6)
