"""Tests of hedgerow.server.cohort.convolution: both ways equal torch's own, and the choice is kept."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from hedgerow.server.cohort.convolution import ConvolutionChoice, convolution_decompositions

pytestmark = pytest.mark.heavy

CASES = [
    ((2, 3 * 2, 7, 6), (3 * 4, 2, 3, 2), {"stride": (2, 1), "padding": (1, 2), "dilation": (2, 1)}),
    ((2, 3 * 2, 5, 5), (3 * 4, 2, 1, 1), {"stride": 1}),
    ((2, 3 * 4, 9), (3 * 4, 1, 3), {"stride": 2, "padding": 1}),
    ((2, 3 * 4, 6, 6), (3 * 4, 2, 3, 3), {"stride": 3}),
]
"""Inputs, weights and arguments of convolutions of three clients; the last two have groups of their own."""


def gradients(values, weight, bias, **arguments):
    leaves = [tensor.detach().requires_grad_() for tensor in (values, weight, bias)]
    groups = values.shape[1] // weight.shape[1]
    convolve = torch.nn.functional.conv1d if values.dim() == 3 else torch.nn.functional.conv2d
    out = convolve(*leaves, groups=groups, **arguments)
    return [out, *torch.autograd.grad((out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum(), leaves)]


@pytest.mark.parametrize("case", CASES)
def test_an_unfolded_convolution_and_its_gradients_are_torchs(case):
    size, kernel, arguments = case
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(s, generator=generator, dtype=torch.float64) for s in (size, kernel, kernel[:1])]
    table = convolution_decompositions(3, ConvolutionChoice("cpu", "unfolded"))
    traced = make_fx(lambda *args: gradients(*args, **arguments), decomposition_table=table)(*tensors)

    assert not [node for node in traced.graph.nodes if "convolution" in str(node.target)]
    for found, wanted in zip(traced(*tensors), gradients(*tensors, **arguments), strict=True):
        torch.testing.assert_close(found, wanted.detach())


def test_a_cpu_takes_the_grouped_way_by_rule_and_other_devices_measure_once():
    def refuse():
        raise AssertionError

    calls = []

    def measure():
        calls.append(1)
        return {"grouped": 2.0, "unfolded": 1.0}

    assert ConvolutionChoice("cpu")("shape", refuse) == "grouped"
    assert ConvolutionChoice("cuda", "grouped")("shape", refuse) == "grouped"
    choice = ConvolutionChoice("cuda")
    assert [choice("shape", measure) for _ in range(3)] == ["unfolded"] * 3
    assert calls == [1]
    assert choice.chosen == {"shape": "unfolded"}


def test_measuring_leaves_no_trace():
    size, kernel, arguments = CASES[0]
    tensors = [torch.randn(s) for s in (size, kernel, kernel[:1])]
    choice = ConvolutionChoice("some accelerator")
    table = convolution_decompositions(3, choice)
    traced = make_fx(lambda *args: gradients(*args, **arguments), decomposition_table=table)(*tensors)

    assert set(choice.chosen) == {"convolution 2->4 3x2 stride 2x1 of 7x6"}
    assert len(traced.graph.nodes) < 60
    for found, wanted in zip(traced(*tensors), gradients(*tensors, **arguments), strict=True):
        torch.testing.assert_close(found, wanted.detach(), rtol=1e-4, atol=1e-5)
