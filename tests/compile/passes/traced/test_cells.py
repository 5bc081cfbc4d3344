"""Cells of recurrent layers in plain operators give what torch gives."""

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from hedgerow.compile.passes.traced.cells import CELL_WORDS  # noqa: E402
from hedgerow.compile.passes.traced.moved import COREML_WORDS, OtherWords  # noqa: E402

pytestmark = pytest.mark.heavy

CELLS = {
    "lstm": lambda bias: nn.LSTMCell(3, 5, bias=bias),
    "gru": lambda bias: nn.GRUCell(3, 5, bias=bias),
    "tanh": lambda bias: nn.RNNCell(3, 5, bias=bias),
    "relu": lambda bias: nn.RNNCell(3, 5, bias=bias, nonlinearity="relu"),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", CELLS)
def test_a_cell_in_other_words_gives_what_torch_gives(kind, bias):
    torch.manual_seed(0)
    cell, x, hidden = CELLS[kind](bias), torch.randn(4, 3), torch.randn(4, 5)
    state = (hidden, torch.randn(4, 5)) if kind == "lstm" else hidden
    called = []
    words = {func: lambda *args, word=word: called.append(1) or word(*args) for func, word in CELL_WORDS.items()}
    with torch.no_grad():
        wanted = cell(x, state)
        with OtherWords(words):
            found = cell(x, state)

    assert called == [1], "the other words were used"
    torch.testing.assert_close(found, wanted)


def test_core_ml_is_given_the_other_words():
    assert CELL_WORDS.items() <= COREML_WORDS.items()
