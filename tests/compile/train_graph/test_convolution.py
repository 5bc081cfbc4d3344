"""Each way to a convolution's gradients equals torch's own."""

import pytest

torch = pytest.importorskip("torch")

from hedgerow.compile.train_graph.convolution import convolution_backward  # noqa: E402 - needs torch
from hedgerow.compile.train_graph.tflite_convolution import (  # noqa: E402
    tflite_convolution,
    tflite_convolution_backward,
)

pytestmark = pytest.mark.heavy

# channels, filters, height and width, kernel, stride, padding, dilation, groups
SHAPES = {
    "few places": (8, 6, (4, 4), (3, 3), (1, 1), (1, 1), (1, 1), 1),
    "many places": (2, 5, (12, 10), (3, 3), (1, 1), (1, 1), (1, 1), 1),
    "a row and a column that no window meets": (3, 4, (8, 10), (3, 3), (2, 2), (1, 1), (1, 1), 1),
    "windows that leave the last rows out": (3, 4, (11, 11), (3, 2), (4, 3), (0, 0), (1, 1), 1),
    "more padding than kernel": (2, 3, (5, 6), (2, 2), (1, 1), (3, 3), (1, 1), 1),
    "holes between rows": (2, 3, (9, 9), (3, 3), (1, 1), (2, 1), (2, 1), 1),
    "holes between columns": (2, 3, (9, 9), (3, 3), (1, 1), (2, 2), (2, 2), 1),
    "groups": (4, 6, (7, 7), (3, 3), (1, 1), (1, 1), (1, 1), 2),
    "groups and stride": (4, 6, (8, 8), (3, 3), (2, 2), (1, 1), (1, 1), 2),
    "depthwise": (4, 8, (7, 7), (3, 3), (1, 1), (1, 1), (1, 1), 4),
    "depthwise and stride": (4, 4, (8, 7), (3, 3), (2, 2), (1, 1), (1, 1), 4),
    "one tap": (4, 6, (8, 8), (1, 1), (2, 2), (0, 0), (1, 1), 1),
    "one row": (3, 4, (1, 16), (1, 5), (1, 1), (0, 2), (1, 1), 1),
    "one row and stride": (3, 4, (1, 16), (1, 5), (1, 2), (0, 2), (1, 1), 1),
    "a kernel as large as the image": (3, 4, (5, 5), (5, 5), (1, 1), (0, 0), (1, 1), 1),
    "a stride larger than the kernel": (3, 4, (9, 9), (2, 2), (3, 4), (0, 1), (1, 1), 1),
    "holes and stride": (3, 4, (11, 10), (3, 3), (2, 2), (2, 2), (2, 3), 1),
}


BACKWARD = {"onnx": convolution_backward, "tflite": tflite_convolution_backward}


def drawn(name, batch):
    """Return values, weight and a gradient of the output, and what torch's operators take after them."""
    channels, filters, size, kernel, stride, padding, dilation, groups = SHAPES[name]
    generator = torch.Generator().manual_seed(4)
    values = torch.randn(batch, channels, *size, generator=generator)
    weight = torch.randn(filters, channels // groups, *kernel, generator=generator)
    out = torch.conv2d(values, weight, None, stride, padding, dilation, groups)
    return values, weight, torch.randn(out.shape, generator=generator), (list(stride), list(padding), list(dilation))


@pytest.mark.parametrize("kind", sorted(BACKWARD))
@pytest.mark.parametrize("batch", [3, 8])
@pytest.mark.parametrize("name", sorted(SHAPES))
def test_the_gradients_equal_torchs(name, batch, kind):
    values, weight, grad, settings = drawn(name, batch)
    rest = (*settings, False, [0, 0], SHAPES[name][-1], [True, True, True])
    wanted = torch.ops.aten.convolution_backward(grad, values, weight, [len(weight)], *rest)
    found = BACKWARD[kind](grad, values, weight, [len(weight)], *rest)
    for ours, torchs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, torchs, atol=2e-4, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_a_transposed_convolution_and_its_gradients_equal_torchs(name):
    image, weight, values, settings = drawn(name, 3)
    stride, padding, dilation = settings
    groups = SHAPES[name][-1]
    smallest = torch.conv_transpose2d(values, weight, None, stride, padding, [0, 0], groups, dilation)
    # What is added to the output so that it has the image's size; torch takes less than the stride or the dilation.
    spare = [wanted - found for wanted, found in zip(image.shape[2:], smallest.shape[2:], strict=True)]
    bias = torch.linspace(-1, 1, image.shape[1])
    wanted = torch.conv_transpose2d(values, weight, bias, stride, padding, spare, groups, dilation)
    found = tflite_convolution(values, weight, bias, *settings, True, spare, groups)
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-5)
    rest = (*settings, True, spare, groups, [True, True, True])
    expected = torch.ops.aten.convolution_backward(wanted, values, weight, [len(bias)], *rest)
    for backward in BACKWARD.values():
        gradients = backward(wanted, values, weight, [len(bias)], *rest)
        for ours, torchs in zip(gradients, expected, strict=True):
            torch.testing.assert_close(ours, torchs, atol=2e-3, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(name for name in SHAPES if SHAPES[name][-1] == 1))
def test_a_convolution_as_products_equals_torchs(name):
    values, weight, grad, settings = drawn(name, 3)
    bias = torch.linspace(-1, 1, len(weight))
    found = tflite_convolution(values, weight, bias, *settings, False, [0, 0], 1)
    if name == "a kernel as large as the image":
        # Most of the products' columns would be thrown away: the format's own convolution is left where it is.
        assert found is NotImplemented
        return
    torch.testing.assert_close(found, torch.conv2d(values, weight, bias, *settings), atol=2e-5, rtol=1e-5)
    assert found.shape == grad.shape
