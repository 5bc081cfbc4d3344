"""Batch norm as one function has the values and gradients that torch's has."""

import pytest

torch = pytest.importorskip("torch")

from hedgerow.compile.train_graph.norms import frozen_batch_norm, train_batch_norm  # noqa: E402 - needs torch

pytestmark = pytest.mark.heavy

SHAPES = [(6, 3), (4, 3, 5), (4, 3, 5, 7)]


def drawn(shape):
    generator = torch.Generator().manual_seed(7)
    values = torch.randn(shape, generator=generator, dtype=torch.float64) * 3 + 2
    vectors = [torch.rand(3, generator=generator, dtype=torch.float64) + 0.5 for _ in range(4)]
    return values, *vectors, torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("shape", SHAPES)
def test_with_the_batchs_statistics(shape):
    values, weight, bias, _mean, _variance, direction = drawn(shape)

    def ours(*given):
        return (train_batch_norm(*given, 1e-5)[0] * direction).sum()

    def torchs(values, weight, bias):
        return (torch.nn.functional.batch_norm(values, None, None, weight, bias, True) * direction).sum()

    found, wanted = (torch.func.grad_and_value(each, (0, 1, 2))(values, weight, bias) for each in (ours, torchs))
    torch.testing.assert_close(found, wanted)
    _result, mean, variance = train_batch_norm(values, weight, bias, 1e-5)
    axes = [axis for axis in range(values.ndim) if axis != 1]
    torch.testing.assert_close(mean, values.mean(axes))
    torch.testing.assert_close(variance, values.var(axes, correction=0))


@pytest.mark.parametrize("shape", SHAPES)
def test_with_given_statistics(shape):
    values, weight, bias, mean, variance, direction = drawn(shape)

    def ours(*given):
        return (frozen_batch_norm(*given, mean, variance, 1e-5) * direction).sum()

    def torchs(values, weight, bias):
        return (torch.nn.functional.batch_norm(values, mean, variance, weight, bias) * direction).sum()

    found, wanted = (torch.func.grad_and_value(each, (0, 1, 2))(values, weight, bias) for each in (ours, torchs))
    torch.testing.assert_close(found, wanted)
