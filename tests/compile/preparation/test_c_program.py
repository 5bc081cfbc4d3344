"""The C of each operator gives what torch gives, compiled and run; what has no C is refused by its name."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from hedgerow.compile.errors import UnsuitableError  # noqa: E402
from hedgerow.compile.preparation.c_file import prepare_source  # noqa: E402
from hedgerow.compile.preparation.c_interface import Interface  # noqa: E402
from hedgerow.compile.preparation.c_program import translate  # noqa: E402
from hedgerow.compile.preparation.halves import cut  # noqa: E402
from hedgerow.compile.preparation.host_check import find_c_compiler, run_prepare  # noqa: E402
from hedgerow.examples.zoo import raw_sensors  # noqa: E402
from hedgerow.manifest.content import Tensor  # noqa: E402
from hedgerow.schema import TensorSpec  # noqa: E402

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(find_c_compiler() is None, reason="needs a C compiler"),
    # torch warns of parts of its own.
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

VALUES = (np.random.default_rng(0).normal(size=(6, 24)) * 3).astype(np.float32)
KERNEL = torch.linspace(-1, 1, 36).reshape(2, 2, 3, 3)
TABLE = torch.linspace(0, 1, 30).reshape(10, 3)


def image(x):
    return x.reshape(-1, 2, 3, 4)


def compare(preprocess, inputs, specs, tolerance=1e-5):
    """Compile the C of a function, run it, and hold every number against torch's."""
    halves = cut(replace(raw_sensors.task, inputs=specs, preprocess=preprocess))
    given = [Tensor(spec.name, "t", (1, *spec.shape), spec.dtype) for spec in halves.schema.outputs]
    interface = Interface("zoo-raw-sensors", halves.schema, given)
    found = run_prepare(interface, prepare_source(interface, translate(halves)), inputs, find_c_compiler())
    arguments = [torch.from_numpy(inputs[spec.name].copy()) for spec in specs]
    wanted = preprocess(*arguments)
    for one, spec in zip(wanted if isinstance(wanted, tuple) else (wanted,), halves.schema.outputs, strict=True):
        mine = found[spec.name].reshape(one.shape)
        assert mine.dtype == one.numpy().dtype
        np.testing.assert_allclose(mine, one.numpy(), rtol=tolerance, atol=tolerance, err_msg=spec.name)


OPERATORS = {
    "arithmetic": lambda x: (x + 2, 3 - x, x * x, x / 7, 1 / (x.abs() + 1), -x, torch.sub(x, x * 2, alpha=2), x**3),
    "floor and remainder": lambda x: (x // 2, x % 3, torch.fmod(x, 2), x.floor(), x.ceil(), x.round(), x.trunc()),
    "powers": lambda x: (x.square(), x.abs().sqrt(), x.abs().pow(0.33), (x.abs() + 1).rsqrt(), torch.hypot(x, x + 1)),
    "logarithms": lambda x: (x.exp(), x.abs().log1p(), (x.abs() + 1).log(), (x.abs() + 1).log2(), x.expm1()),
    "angles": lambda x: (x.sin(), x.cos(), x.tanh(), x.atan(), torch.atan2(x, x + 1)),
    "activations": lambda x: (
        x.relu(),
        x.sigmoid(),
        x.sign(),
        x.clamp(-1, 2),
        x.clamp_min(0),
        nn.functional.hardtanh(x),
    ),
    "choices": lambda x: (torch.where(x > 0, x, -2 * x), torch.maximum(x, x * 0.5), torch.minimum(x, x * 0.5)),
    "comparisons": lambda x: ((x > 0) & (x < 1) | ~(x > -1), x.eq(0.5), torch.logical_xor(x > 0, x > 1), x.ne(x)),
    "casts": lambda x: ((x * 4).to(torch.int64), (x * 4).to(torch.int32) + 1, (x > 0).float(), x.long().eq(0.5)),
    "not a number": lambda x: (torch.nan_to_num(torch.where(x > 0, x, torch.nan), nan=7.0), x.isnan(), x.isinf()),
    "constants of a form": lambda x: (
        torch.where(x > 0, torch.zeros_like(x), x),
        x + torch.full_like(x, 2.5),
        x * x.new_ones(24) - torch.ones_like(x, dtype=torch.int64),
    ),
    "means": lambda x: (
        image(x).mean((2, 3)),
        x.mean(1),
        image(x).sum((1, 3)),
        image(x).amax((2, 3)),
        image(x).amin(1),
    ),
    "spreads": lambda x: (
        x.std(1),
        image(x).var((2, 3), unbiased=False),
        (x - x.mean(1, True)) / x.std(1, keepdim=True),
    ),
    "extremes": lambda x: (x.max(1).values, x.min(1).values, (x > 0).any(1), (x > 0).all(1), x[:, :3].prod(1)),
    "running sum": lambda x: (x.cumsum(1), image(x).cumsum(2)),
    "norms": lambda x: (
        nn.functional.normalize(x),
        torch.linalg.vector_norm(x, dim=1),
        nn.functional.layer_norm(x, (24,)),
    ),
    "shapes": lambda x: (image(x).permute(0, 2, 3, 1).flatten(1), image(x).flip(2), x[:, None].expand(-1, 2, -1) + 1),
    "slices": lambda x: (x[:, 2:20:3], x[:, -1], x.roll(2, 1), x[:, :4].repeat(1, 3), torch.diff(x), x.chunk(3, 1)[1]),
    "joins": lambda x: (
        torch.cat([x, 2 * x[:, :3]], 1),
        torch.stack([x[:, 0], x[:, 1]], 1),
        nn.functional.pad(x, (1, 2)),
    ),
    "picks": lambda x: (x[:, [3, 1, -1]], x.index_select(1, torch.tensor([0, 5])), TABLE[x.long().clamp(0, 9)]),
    "one of": lambda x: nn.functional.one_hot(x.long().clamp(0, 3), 4).float(),
    "products": lambda x: (
        x @ torch.linspace(0, 1, 72).reshape(24, 3),
        nn.functional.linear(x, KERNEL.reshape(-1)[:24][None], torch.ones(1)),
        image(x) @ image(x).transpose(2, 3),
    ),
    "convolutions": lambda x: (
        nn.functional.conv2d(image(x), KERNEL, padding=1),
        nn.functional.conv1d(image(x).flatten(2), torch.ones(2, 1, 3) / 3, groups=2, stride=2),
        nn.functional.avg_pool1d(x[:, None], 3),
        nn.functional.avg_pool2d(image(x), 2, 1),
    ),
    "frames": lambda x: torch.log((x.unfold(1, 8, 4) * torch.hann_window(8)).abs().sum(2).clamp_min(1e-3)),
    "as they are": lambda x: (x, x),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_the_c_of_an_operator_gives_what_torch_gives(name):
    compare(OPERATORS[name], {"x": VALUES}, [TensorSpec("x", (24,))])


def test_bytes_of_an_image_become_what_torch_makes_of_them():
    pixels = np.random.default_rng(1).integers(0, 256, (4, 3, 5, 5)).astype(np.uint8)
    compare(lambda x: (x.float() / 255 - 0.5) / 0.2, {"x": pixels}, [TensorSpec("x", (3, 5, 5), "uint8")])


def test_several_inputs_of_several_types_keep_their_places():
    inputs = {"level": VALUES[:, :4].copy(), "kind": np.arange(6, dtype=np.int64), "on": VALUES[:, 0] > 0}
    specs = [TensorSpec("level", (4,)), TensorSpec("kind", (), "int64"), TensorSpec("on", (), "bool")]
    compare(lambda level, kind, on: (level * kind[:, None], torch.where(on, kind, -kind), on), inputs, specs)


def test_an_input_that_is_not_used_is_taken_all_the_same():
    specs = [TensorSpec("level", (4,)), TensorSpec("kind", (), "int64")]
    compare(lambda level, kind: level + 1, {"level": VALUES[:, :4].copy(), "kind": np.arange(6)}, specs)


def test_nan_in_is_what_preprocess_makes_of_it():
    broken = VALUES.copy()
    broken[0, 0], broken[1, 1], broken[2, 2] = np.nan, np.inf, -np.inf
    compare(lambda x: torch.nan_to_num(x, nan=3.0).clamp(-9, 9), {"x": broken}, [TensorSpec("x", (24,))])
    compare(lambda x: x.clamp(-9, 9).relu(), {"x": broken}, [TensorSpec("x", (24,))])


@pytest.mark.parametrize(
    ("preprocess", "operator"),
    [
        (lambda x: torch.fft.rfft(x).abs(), "aten._fft_r2c.default"),
        (lambda x: x.sort(1).values, "aten.sort.default"),
        (lambda x: x.median(1).values, "aten.median.dim"),
        (lambda x: x.max(1).indices.float(), "aten.max.dim, its output 1"),
        (lambda x: image(x)[:, [0, 1], [0, 1]], "index by several tensors or by a mask"),
        (lambda x: nn.functional.conv_transpose1d(x[:, None], torch.ones(1, 1, 3)), "convolution, transposed"),
    ],
)
def test_an_operator_without_c_is_refused_by_its_name_and_with_what_to_do(preprocess, operator):
    halves = cut(replace(raw_sensors.task, inputs=[TensorSpec("x", (24,))], preprocess=preprocess))
    with pytest.raises(UnsuitableError) as refused:
        translate(halves)
    assert refused.value.found == operator
    assert str(refused.value).endswith("prepare the samples yourself and let the task's inputs be what was prepared")


def test_every_operator_without_c_is_named_at_once():
    halves = cut(
        replace(
            raw_sensors.task,
            inputs=[TensorSpec("x", (24,))],
            preprocess=lambda x: (x.sort(1).values, torch.fft.rfft(x).abs(), x + 1),
        )
    )
    with pytest.raises(UnsuitableError, match=r"found aten\._fft_r2c\.default, aten\.sort\.default;"):
        translate(halves)


def test_the_same_trace_gives_the_same_text_and_a_chain_needs_one_piece_of_memory():
    halves = cut(raw_sensors.task)
    interface = Interface("zoo-raw-sensors", halves.schema, [Tensor("prepared_0", "t", (1, 43), "int8", 0.03, -3)])
    text = prepare_source(interface, translate(halves))
    assert prepare_source(interface, translate(cut(raw_sensors.task))) == text
    assert "/* 172 bytes of scratch memory. */" in text
    assert "math.h" not in text
    assert "malloc" not in text
