"""Tests of hedgerow.server.cohort.simplify and tracing: shorter graphs that do the same."""

import pytest
import torch
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx

from hedgerow.server.cohort.simplify import simplify, update_in_place
from hedgerow.server.cohort.tracing import peak_bytes

pytestmark = pytest.mark.heavy

CPU = torch.device("cpu")


def traced(function, *tensors):
    module = make_fx(functionalize(function))(*tensors)
    module.graph.set_codegen(torch.fx.graph.CodeGen())
    simplify(module, CPU)
    return module


def operations(module):
    return [node.target.__name__ for node in module.graph.nodes if node.op == "call_function"]


def numbers(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_what_changes_nothing_is_dropped_and_equal_parts_are_computed_once():
    def wordy(x):
        same = (x.view(2, 3) * 1).transpose(0, 1).transpose(1, 0).expand(2, 3).detach()
        return [same.exp() + x.exp() * torch.ones_like(x)]

    x = numbers(2, 3)
    module = traced(wordy, x)
    assert operations(module) == ["exp.default", "mul.Tensor", "add.Tensor"]
    torch.testing.assert_close(module(x), wordy(x))


def test_a_scaling_that_changes_type_or_shape_stays():
    module = traced(lambda x: [x * 1.0, x * 2], torch.ones(2, dtype=torch.int64))
    first, second = module(torch.ones(2, dtype=torch.int64))
    assert (first.dtype, second.dtype) == (torch.float32, torch.int64)


def test_a_bias_is_added_by_the_product():
    def layer(x, weight, bias):
        return [bias.view(2, 1, 5) + torch.bmm(x, weight)]

    tensors = numbers(2, 3, 4), numbers(2, 4, 5), numbers(2, 5)
    module = traced(layer, *tensors)
    assert operations(module) == ["view.default", "baddbmm.default"]
    torch.testing.assert_close(module(*tensors), layer(*tensors))


def test_constants_are_not_shared_by_what_is_made_of_them():
    module = traced(lambda x: [torch.zeros(3) + x, torch.zeros(3)], torch.ones(3))
    first, second = module(torch.ones(3))
    first.add_(1)
    assert second.tolist() == [0, 0, 0]


def gradients(left, right, x):
    """Return what would be gradients of two weights, and a loss; the second is the first weight itself."""
    return [torch.bmm(x.transpose(1, 2), x), left.transpose(1, 2), (left * right).sum((1, 2))]


def test_weights_are_changed_in_place_as_if_all_gradients_were_known_before():
    left, right, x = numbers(2, 3, 3), numbers(2, 3, 3), numbers(2, 4, 3)
    module = traced(gradients, left, right, x)
    update_in_place(module, 2)
    of_left, of_right, loss = gradients(left, right, x)
    wanted = [left - 0.1 * of_left, right - 0.1 * of_right]
    (found,) = module(left, right, x, -0.1)

    torch.testing.assert_close([left, right], wanted)
    torch.testing.assert_close(found, loss)
    assert "baddbmm_.default" in operations(module)


def test_the_most_memory_counts_what_lives_at_one_time():
    def chain(x):
        first = x.exp()
        second = first.sin()
        return [second.view(10, 100).cos()]

    assert peak_bytes(traced(chain, torch.ones(1000))) == 2 * 4000
