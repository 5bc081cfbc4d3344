"""Every artifact of the zoo, driven by its own runtime on new samples, without the compiler's checks, against torch."""

import contextlib
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
for _needed in ("onnxruntime", "litert_torch", "tflite_micro"):
    pytest.importorskip(_needed)

from torch import nn  # noqa: E402

from hedgerow.compile.foundation import foundation_of  # noqa: E402
from hedgerow.compile.making import Steps, make  # noqa: E402
from hedgerow.compile.packing import pack_targets  # noqa: E402
from hedgerow.compile.recipes import RECIPES  # noqa: E402
from hedgerow.compile.samples import HeldOutSamples  # noqa: E402
from hedgerow.compile.third_party import FileWishes  # noqa: E402
from hedgerow.examples.zoo import ZOO  # noqa: E402
from hedgerow.examples.zoo.training import train_centrally  # noqa: E402
from hedgerow.hardware.lookup import load_target  # noqa: E402
from hedgerow.manifest.artifact import Artifact  # noqa: E402
from hedgerow.progress import silent  # noqa: E402
from hedgerow.task import load_task  # noqa: E402
from tests.compile.passes.traced.runtimes import in_litert, in_onnxruntime, in_tflite_micro  # noqa: E402
from tests.examples.zoo_samples import fresh, in_torch, int8_bytes, matrix_numbers  # noqa: E402

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.timeout(900),
    # Converters and their dependencies call deprecated parts of each other.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

RUNTIMES = {"raspberry-pi-5": in_onnxruntime, "android-arm64": in_litert, "cortex-m7": in_tflite_micro}
"""Target -> what drives its runtime."""
# The one with state is driven step by step in zoo/test_streaming.py.
TRAINED = [name for name in ZOO if ZOO[name].brings is None and name != "streaming"]
COUNT = 300
LACKS = {"causal_transformer": "GELU", "vit": "GELU"}
"""Model -> the operator for which microcontrollers refuse it."""


class Built:
    """A trained model of the zoo; its files are made by the recipes that targets try first."""

    def __init__(self, name: str) -> None:
        entry = ZOO[name]
        self.name, self.task = name, load_task(entry.task)
        self.data = self.task.load_data()
        self.model = train_centrally(self.task, self.data, epochs=entry.epochs, learning_rate=entry.learning_rate)
        self._foundation = foundation_of(self.task, self.model, self.data)

    def file(self, name: str) -> tuple[bytes, bool]:
        """Return the artifact for a target, and whether it takes prepared samples."""
        target = load_target(name)
        recipe = RECIPES[target.recipe]
        steps = Steps(name, len(recipe.passes), silent)
        made = make(self._foundation, recipe, steps, all_integer=target.all_integer)
        return made.stage.content, made.beside is not None


@pytest.fixture(scope="module", params=TRAINED)
def built(request) -> Built:
    """A model; the next one begins when all tests of it are done."""
    torch.set_num_threads(1)
    return Built(request.param)


@pytest.mark.parametrize("target", RUNTIMES)
def test_an_artifact_gives_what_torch_gives_and_holds_its_weights_in_a_byte_each(built, target):
    content, takes_prepared = built.file(target)
    if target == "cortex-m7" and built.name in LACKS:
        # The operator stands in no table that was made by running the runtime, and the runtime takes no such file.
        assert LACKS[built.name] not in load_target(target).operators
        with pytest.raises(RuntimeError):
            in_tflite_micro(content, fresh(built.name, 1).inputs[built.task.inputs[0].name])
        return
    samples = fresh(built.name, COUNT)
    (rows,) = samples.inputs.values()
    wanted = in_torch(built.task, built.model, rows)
    assert takes_prepared == (built.name == "raw_sensors" and target == "cortex-m7")
    found = RUNTIMES[target](content, built.task.preprocess(torch.from_numpy(rows)).numpy() if takes_prepared else rows)
    assert found.shape == wanted.shape
    right, kept = ((each.argmax(1) == samples.target_values).mean() for each in (wanted, found))
    assert right > 0.7
    assert kept >= right - 0.02, f"{right:.3f} in torch, {kept:.3f} in the runtime"
    assert (found.argmax(1) == wanted.argmax(1)).mean() >= 0.95
    assert np.abs(found - wanted).mean() < 0.03
    # A tied weight and a table of positions are looked up as floats where that is smaller.
    least = 0.8 if built.name == "causal_transformer" else 0.9
    assert int8_bytes(load_target(target).format, content) >= least * matrix_numbers(built.model)


@pytest.fixture(scope="module")
def detector_model() -> nn.Module:
    from hedgerow.examples.zoo import detector

    torch.set_num_threads(1)
    return detector.train_detector(detector.data().train)


@pytest.fixture(scope="module")
def brought(detector_model, tmp_path_factory) -> dict[str, tuple[Artifact, bytes]]:
    """The detector's files, quantized by each target's default recipe."""
    from hedgerow.examples.zoo import detector

    folder = tmp_path_factory.mktemp("detector")
    with contextlib.redirect_stdout(sys.stderr):
        own = detector.bring(folder, detector_model)
    samples = HeldOutSamples(detector.task, detector.task.load_data())
    files = {}
    for kind, path in own.items():
        targets = [target for target in RUNTIMES if load_target(target).format == kind]
        wishes = FileWishes(samples=samples, recipes={target: load_target(target).recipe for target in targets})
        outcome = pack_targets(path, targets, folder / f"{kind}-build", wishes)
        assert outcome.refused == ()
        for artifact in outcome.build.artifacts:
            content = (folder / f"{kind}-build" / "blobs" / artifact.blob.sha256).read_bytes()
            files[artifact.target] = artifact, content
    return files


def overlap(found: np.ndarray, wanted: np.ndarray) -> float:
    """Return the mean intersection over union of boxes, each (centre, width, height)."""
    least, most = (np.maximum, np.minimum)
    low = least(found[:, :2] - found[:, 2:] / 2, wanted[:, :2] - wanted[:, 2:] / 2)
    high = most(found[:, :2] + found[:, 2:] / 2, wanted[:, :2] + wanted[:, 2:] / 2)
    shared = np.clip(high - low, 0, None).prod(1)
    return float((shared / (found[:, 2:].prod(1) + wanted[:, 2:].prod(1) - shared)).mean())


@pytest.mark.parametrize("target", RUNTIMES)
def test_both_outputs_of_a_detector_are_as_good_as_torchs(brought, detector_model, target):
    from hedgerow.examples.zoo import detector

    samples = fresh("detector", COUNT)
    rows = samples.inputs["image"]
    with torch.no_grad():
        scores, boxes = (each.numpy() for each in detector.Served(detector_model).eval()(torch.from_numpy(rows)))
    artifact, content = brought[target]
    both = [RUNTIMES[target](content, rows, place) for place in range(2)]
    (found,) = (each for each in both if np.abs(each.sum(1) - 1).max() < 0.05)
    (where,) = (each for each in both if each is not found)
    assert "probabilities" in {tensor.name for tensor in artifact.outputs}
    assert (found.argmax(1) == samples.target_values).mean() >= (
        scores.argmax(1) == samples.target_values
    ).mean() - 0.02
    assert (found.argmax(1) == scores.argmax(1)).mean() >= 0.95
    assert overlap(boxes, samples.columns["box"]) > 0.5
    assert overlap(where, samples.columns["box"]) >= overlap(boxes, samples.columns["box"]) - 0.02
    assert np.abs(where - boxes).mean() < 0.01
    assert int8_bytes(artifact.format, content) >= 0.9 * matrix_numbers(detector_model)


def test_a_detectors_files_come_to_no_phone_of_apples_and_the_refusal_says_what_is_wanted(brought, tmp_path):
    _artifact, content = brought["raspberry-pi-5"]
    (tmp_path / "detector.onnx").write_bytes(content)
    outcome = pack_targets(tmp_path / "detector.onnx", ["iphone-15"], tmp_path / "out")
    ((check, reason),) = ((refusal.check, refusal.reason) for refusal in outcome.refused)
    assert check == "format"
    assert "expected mlpackage" in reason
