"""Masks written anew give what they gave, and hold no number that softmax cannot see."""

import math
import warnings

import pytest

torch = pytest.importorskip("torch")

from torch import fx, nn  # noqa: E402

from hedgerow.compile.passes.traced.masks import LOW, rewrite_masks  # noqa: E402
from tests.compile.passes.traced.masked import LENGTH, MASKS, make_source, words  # noqa: E402

pytestmark = pytest.mark.heavy


class _Extremes(fx.Interpreter):
    """Runs a graph, and keeps the lowest and highest float in it."""

    def __init__(self, program):
        super().__init__(program)
        self.low, self.high = 0.0, 0.0

    def run_node(self, n):
        value = super().run_node(n)
        if isinstance(value, torch.Tensor) and value.is_floating_point() and value.numel():
            self.low, self.high = min(self.low, float(value.min())), max(self.high, float(value.max()))
        return value


def traced(model: nn.Module, example: torch.Tensor) -> fx.GraphModule:
    with warnings.catch_warnings():
        # torch tells that it makes one type of two masks.
        warnings.simplefilter("ignore")
        return torch.export.export(model, (example,)).module(check_guards=False)


@pytest.mark.parametrize("name", MASKS)
def test_a_rewritten_mask_gives_what_it_gave_and_is_nowhere_lower_than_our_own(name):
    source = make_source(name)
    fresh = torch.from_numpy(words(64, seed=7))
    before = traced(source.model, fresh)
    with torch.no_grad():
        wanted = before(fresh)
    program = traced(source.model, fresh)
    assert rewrite_masks(program, [(torch.from_numpy(words(64, seed=1)),)])
    extremes = _Extremes(program)
    with torch.no_grad():
        found = extremes.run(fresh)
    assert torch.isfinite(wanted).all()
    torch.testing.assert_close(found, wanted, atol=2e-6, rtol=2e-6)
    assert extremes.low == LOW
    assert extremes.high < 1e3


class _Plain(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.change = change

    def forward(self, x):
        return self.change(x).softmax(-1)


def _rewritten(change, x):
    program = traced(_Plain(change), x)
    return program, rewrite_masks(program, [(x,)])


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x,
        lambda x: x * 100.0,
        lambda x: x - 0.5 * torch.arange(6.0),
        lambda x: x + torch.tensor([0.0, -5.0, 0.0, -19.0, 0.0, 0.0]),
        lambda x: torch.where(x > 0, x, x * 0.1),
        lambda x: x.masked_fill(x < 0, 0.0),
        lambda x: x.clamp(min=-1e9),
        lambda x: x - x.amax(-1, keepdim=True),
    ],
    ids=["none", "scaled", "slope", "soft mask", "leaky", "filled with zero", "bounded", "shifted"],
)
def test_what_is_no_mask_stays_as_it_is(change):
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    before = traced(_Plain(change), x)
    program, found = _rewritten(change, x)
    assert not found
    assert len(program.graph.nodes) == len(before.graph.nodes)
    assert torch.equal(program(x), change(x).softmax(-1))


def test_a_mask_that_softmax_sees_among_wide_scores_stays():
    x = torch.linspace(-400, 400, 24).reshape(4, 6)
    change = lambda x: x + torch.tensor([0.0, -100.0, 0.0, 0.0, 0.0, 0.0])  # noqa: E731
    program, found = _rewritten(change, x)
    assert not found
    torch.testing.assert_close(program(x), change(x).softmax(-1))


def test_the_same_mask_goes_among_narrow_scores():
    x = torch.linspace(-4, 4, 24).reshape(4, 6)
    program, found = _rewritten(lambda x: x + torch.tensor([0.0, -100.0, 0.0, 0.0, 0.0, 0.0]), x)
    assert found
    assert float(program(x)[:, 1].abs().max()) == 0.0


def test_scores_far_below_zero_are_still_above_what_a_mask_hides():
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)) * 1e4 - 1e6
    hidden = torch.tensor([False, True, False, False, False, False])
    program, found = _rewritten(lambda x: x.masked_fill(hidden, -math.inf), x)
    assert found
    torch.testing.assert_close(program(x), x.masked_fill(hidden, -math.inf).softmax(-1))


def test_attention_that_sees_nothing_gives_zeros_as_torch_does():
    source = make_source("attention, padding")
    tokens = torch.from_numpy(words(4, seed=3))
    tokens[2] = 0
    with torch.no_grad():
        wanted = source.model(tokens)
    program = traced(source.model, tokens)
    assert rewrite_masks(program, [(tokens,)])
    torch.testing.assert_close(program(tokens), wanted, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("low", [-math.inf, -1e9])
def test_a_softmax_that_sees_nothing_gives_equal_shares(low):
    x = torch.randn(2, LENGTH, generator=torch.Generator().manual_seed(0))
    hidden = torch.tensor([[True], [False]])
    program, found = _rewritten(lambda x: x.masked_fill(hidden, low), x)
    assert found
    shares = program(x)
    assert shares[0].tolist() == pytest.approx([1 / LENGTH] * LENGTH)
    torch.testing.assert_close(shares[1], x[1].softmax(-1))
    assert bool(torch.isnan(x.masked_fill(hidden, low).softmax(-1)[0]).all()) == math.isinf(low)


def test_floats_of_the_user_as_a_mask_keep_what_is_a_bias():
    """An input times -1e9 hides where it is one, and biases where it is nearly zero."""

    class Weighted(nn.Module):
        def forward(self, x, mask):
            return (x + mask * -1e9).softmax(-1)

    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[0.0, 1.0, 0.0, 0.0, 2e-9, 0.0]])
    program = torch.export.export(Weighted(), (x, mask)).module(check_guards=False)
    assert rewrite_masks(program, [(x, mask)])
    with torch.no_grad():
        torch.testing.assert_close(program(x, mask), Weighted()(x, mask))
    assert program(x, mask)[0, 4] < x.softmax(-1)[0, 4] / 3


def test_a_mask_that_two_layers_share_is_rewritten_in_both():
    class Twice(nn.Module):
        def forward(self, x):
            mask = torch.zeros(6).masked_fill(torch.arange(6) > 3, -math.inf)
            return ((x + mask).softmax(-1) * 3 + mask).softmax(-1)

    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    program = torch.export.export(Twice(), (x,)).module(check_guards=False)
    assert rewrite_masks(program, [(x,)])
    extremes = _Extremes(program)
    torch.testing.assert_close(extremes.run(x), Twice()(x))
    assert extremes.low == LOW
