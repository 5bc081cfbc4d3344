"""What the Core ML passes write, read from the package: int8, int4 blocks and palettes."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("coremltools")

from hedgerow.compile.errors import PassSettingsError  # noqa: E402 - needs torch
from hedgerow.compile.inspection.coreml import read_coreml, specification_version  # noqa: E402
from hedgerow.compile.passes.coreml.export import ExportCoreml  # noqa: E402
from hedgerow.compile.passes.coreml.palettize import PalettizeCoreml, cluster  # noqa: E402
from hedgerow.compile.passes.coreml.quantize_weights import QuantizeCoremlWeights  # noqa: E402
from hedgerow.compile.passes.runner import run_file_pass  # noqa: E402

pytestmark = [
    pytest.mark.heavy,
    # The converter and its dependencies call deprecated parts of each other.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    # coremltools 9 leaves temporary files to the collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

CALLS = {
    "int8": (QuantizeCoremlWeights, {"bits": 8}, 0.75),
    "int4": (QuantizeCoremlWeights, {"bits": 4, "block": 16}, 0.7),
    "palette": (PalettizeCoreml, {"bits": 4}, 0.65),
}


@pytest.mark.parametrize("name", sorted(CALLS))
def test_weights_are_stored_small_and_the_same_every_time(name, source, coreml_stage):
    step, settings, share = CALLS[name]
    stage = run_file_pass(step(**settings), source, coreml_stage)
    assert len(stage.content) < share * len(coreml_stage.content)
    assert read_coreml(stage.content).quantized_share > 0.85
    assert run_file_pass(step(**settings), source, coreml_stage).content == stage.content


@pytest.mark.parametrize("name", sorted(CALLS))
def test_a_constant_that_is_joined_with_others_keeps_no_weight_from_being_small(name, source):
    class Tokens(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.wide = torch.nn.Parameter(torch.randn(1, 1, 64)), torch.nn.Linear(64, 96)
            self.head = torch.nn.Linear(96, 10)

        def forward(self, image):
            rows = torch.cat([self.first.expand(image.shape[0], -1, -1), image.flatten(2)], dim=1)
            return self.head(torch.relu(self.wide(rows)).mean(1))

    step, settings, share = CALLS[name]
    joined = replace(source, model=Tokens().eval())
    version = "iOS18" if name == "int4" else "iOS17"
    exported = run_file_pass(ExportCoreml(minimum_version=version), joined, None)
    stage = run_file_pass(step(**settings), joined, exported)
    assert len(stage.content) < share * len(exported.content)
    assert read_coreml(stage.content).quantized_share > 0.85


def test_int4_is_really_stored_and_needs_ios_18(source, coreml_stage):
    stage = run_file_pass(QuantizeCoremlWeights(bits=4, block=16), source, coreml_stage)
    assert "int4" in read_coreml(stage.content).number_types
    assert specification_version(stage.content) == 9


def test_a_palette_of_four_values_finds_four_heaps():
    heaps = np.array([[-3.0, -1.0], [1.0, 3.0]], dtype=np.float32)
    weight = (heaps[None] + np.linspace(-0.1, 0.1, 25, dtype=np.float32)[:, None, None]).astype(np.float32)
    palette, positions = cluster(weight, 4)
    np.testing.assert_allclose(palette, [-3, -1, 1, 3], atol=1e-6)
    np.testing.assert_array_equal(
        palette[positions].reshape(weight.shape), np.broadcast_to(heaps, weight.shape).round()
    )
    assert palette.dtype == np.float32


def test_a_palette_may_have_more_places_than_there_are_numbers():
    palette, positions = cluster(np.array([1.0, 1.0, 2.0], dtype=np.float32), 16)
    assert palette.shape == (16,)
    np.testing.assert_allclose(palette[positions], [1, 1, 2])


@pytest.mark.parametrize(("step", "wrong"), [(QuantizeCoremlWeights, {"bits": 6}), (PalettizeCoreml, {"bits": 3})])
def test_settings_are_checked(step, wrong):
    with pytest.raises(PassSettingsError, match="bits"):
        step(**wrong)
