"""Each way to a convolution's gradients equals torch's own."""

import pytest

torch = pytest.importorskip("torch")

from hedgerow.compile.train_graph.convolution import convolution_backward  # noqa: E402 - needs torch

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
}


@pytest.mark.parametrize("for_tflite", [False, True])
@pytest.mark.parametrize("batch", [3, 8])
@pytest.mark.parametrize("name", sorted(SHAPES))
def test_the_gradients_equal_torchs(name, batch, for_tflite):
    channels, filters, size, kernel, stride, padding, dilation, groups = SHAPES[name]
    generator = torch.Generator().manual_seed(4)
    values = torch.randn(batch, channels, *size, generator=generator)
    weight = torch.randn(filters, channels // groups, *kernel, generator=generator)
    out = torch.conv2d(values, weight, None, stride, padding, dilation, groups)
    grad = torch.randn(out.shape, generator=generator)
    rest = (list(stride), list(padding), list(dilation), False, [0, 0], groups, [True, True, True])
    wanted = torch.ops.aten.convolution_backward(grad, values, weight, [filters], *rest)
    found = convolution_backward(grad, values, weight, [filters], *rest, for_tflite=for_tflite)
    for ours, torchs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, torchs, atol=2e-4, rtol=1e-5)
