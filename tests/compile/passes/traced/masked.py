"""Small attentive networks, one for each way of masking."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from hedgerow.compile.pass_models import FloatModel
from hedgerow.schema import TensorSpec
from hedgerow.task import Dataset, LocalTraining, Task, TaskData

TOKENS, LENGTH, WIDTH, HEADS = 12, 10, 16, 2
LOWEST = torch.finfo(torch.float32).min


def _later() -> torch.Tensor:
    """Return where a place would look ahead."""
    return torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)


def _distance() -> torch.Tensor:
    places = torch.arange(LENGTH)
    return (places[:, None] - places).abs().float()


class _Scored(nn.Module):
    """Attention that writes its scores out, and masks them by a function of scores and tokens."""

    def __init__(self, mask: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(TOKENS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, TOKENS)
        self.mask = mask

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens) + self.place(torch.arange(LENGTH))
        x = x + self.out(self.attend(x, tokens))
        return self.head(self.norm(x)[:, -1] + self.norm(x)[:, LENGTH // 2])

    def parts(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(
            part.reshape(x.shape[0], LENGTH, HEADS, WIDTH // HEADS).transpose(1, 2) for part in self.qkv(x).chunk(3, -1)
        )

    def attend(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        q, k, v = self.parts(x)
        scores = self.mask(q @ k.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5, tokens)
        return (scores.softmax(-1) @ v).transpose(1, 2).reshape(x.shape[0], LENGTH, WIDTH)


class _Sdpa(_Scored):
    """The same through ``scaled_dot_product_attention``, with what *mask* makes of the tokens as its options."""

    def __init__(self, options: Callable[[torch.Tensor], Mapping[str, object]]) -> None:
        super().__init__(lambda scores, _tokens: scores)
        self.options = options

    def attend(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        q, k, v = self.parts(x)
        seen = functional.scaled_dot_product_attention(q, k, v, **self.options(tokens))
        return seen.transpose(1, 2).reshape(x.shape[0], LENGTH, WIDTH)


class _Layer(_Scored):
    """The same through torch's own layers."""

    def __init__(self, kind: str) -> None:
        super().__init__(lambda scores, _tokens: scores)
        self.kind = kind
        if kind.startswith("encoder"):
            self.layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 24, dropout=0.0, batch_first=True)
        else:
            self.layer = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def attend(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        mask, padding = nn.Transformer.generate_square_subsequent_mask(LENGTH), tokens == 0
        if self.kind == "encoder, causal":
            return self.layer(x, src_mask=mask, is_causal=True)
        if self.kind == "encoder, padding":
            return self.layer(x, src_key_padding_mask=padding)
        if self.kind == "layer, both, with weights":
            # torch wants both masks of one type, or warns.
            return self.layer(x, x, x, key_padding_mask=padding, attn_mask=_later())[0]
        return self.layer(x, x, x, key_padding_mask=padding, attn_mask=_later(), need_weights=False)[0]


def _in_place(scores: torch.Tensor, _tokens: torch.Tensor) -> torch.Tensor:
    scores = scores * 1.0
    scores.masked_fill_(_later(), -math.inf)
    return scores


def _added_in_place(scores: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    scores = scores * 1.0
    scores += _given(tokens)[:, None, None] * -1e9
    return scores


def _given(tokens: torch.Tensor) -> torch.Tensor:
    """Return one where a token is padding."""
    return 1.0 - (tokens != 0).float()


MASKS: Mapping[str, Callable[[], nn.Module]] = {
    "filled, -inf": lambda: _Scored(lambda s, _t: s.masked_fill(_later(), -math.inf)),
    "filled, lowest": lambda: _Scored(lambda s, _t: s.masked_fill(_later(), LOWEST)),
    "filled, -1e9": lambda: _Scored(lambda s, _t: s.masked_fill(_later(), -1e9)),
    "filled in place": lambda: _Scored(_in_place),
    "added, -inf": lambda: _Scored(lambda s, _t: s + torch.full((LENGTH, LENGTH), -math.inf).triu(1)),
    "added, -1e9": lambda: _Scored(lambda s, _t: s + _later().float() * -1e9),
    "added, -1e4": lambda: _Scored(lambda s, _t: s + _later().float() * -1e4),
    "added, -100": lambda: _Scored(lambda s, _t: s + _later().float() * -100.0),
    "subtracted, 1e9": lambda: _Scored(lambda s, _t: s - 1e9 * _later()),
    "added, then scaled": lambda: _Scored(lambda s, _t: (s * 2 + _later() * -1e9) / 2),
    "logarithm": lambda: _Scored(lambda s, _t: s + (~_later()).float().log()),
    "chosen, -1e9": lambda: _Scored(lambda s, _t: torch.where(_later(), torch.tensor(-1e9), s)),
    "chosen, -inf last": lambda: _Scored(lambda s, _t: torch.where(~_later(), s, -math.inf)),
    "biased and masked": lambda: _Scored(
        lambda s, _t: s + (-0.3 * _distance()).masked_fill(_later(), -math.inf)[None, None]
    ),
    "masked, bounded below": lambda: _Scored(lambda s, _t: torch.maximum(s + _later() * LOWEST, torch.tensor(LOWEST))),
    "causal": lambda: _Sdpa(lambda _t: {"is_causal": True}),
    "attention, truth values": lambda: _Sdpa(lambda _t: {"attn_mask": ~_later()}),
    "attention, floats": lambda: _Sdpa(lambda _t: {"attn_mask": torch.full((LENGTH, LENGTH), -math.inf).triu(1)}),
    "attention, padding": lambda: _Sdpa(lambda t: {"attn_mask": (t != 0)[:, None, None]}),
    "padding, filled": lambda: _Scored(lambda s, t: s.masked_fill((t == 0)[:, None, None], -math.inf)),
    "padding, added": lambda: _Scored(lambda s, t: s + _given(t)[:, None, None] * -10000.0),
    "padding, added in place": lambda: _Scored(_added_in_place),
    "padding, truth values times": lambda: _Scored(lambda s, t: s + ((t == 0) * -1e9)[:, None, None]),
    "padding, whole numbers times": lambda: _Scored(lambda s, t: s + (((t != 0).int() - 1) * 1e9)[:, None, None]),
    "padding and causal": lambda: _Scored(
        lambda s, t: s.masked_fill(_later(), LOWEST) + _given(t)[:, None, None] * LOWEST
    ),
    "encoder, causal": lambda: _Layer("encoder, causal"),
    "encoder, padding": lambda: _Layer("encoder, padding"),
    "layer, both": lambda: _Layer("layer, both"),
    "layer, both, with weights": lambda: _Layer("layer, both, with weights"),
}
"""What a mask is called -> a network that has it."""


def words(count: int, seed: int) -> np.ndarray:
    """Return rows of tokens that begin with something; a third of them end in padding (zeros)."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(1, TOKENS, (count, LENGTH))
    ends = np.where(rng.random(count) < 1 / 3, rng.integers(3, LENGTH, count), LENGTH)
    return np.where(np.arange(LENGTH) < ends[:, None], rows, 0)


def make_source(name: str, steps: int = 0) -> FloatModel:
    """Return the network with the mask *name*: a token's class is the row's first one, which the others must look for.

    Args:
        name: Of the mask.
        steps: How many steps it is trained; 300 find every class.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MASKS[name]()
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        for step in range(steps):
            x = torch.from_numpy(words(64, seed=1000 + step))
            loss = functional.cross_entropy(model(x), x[:, 0])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    train, held_out = (Dataset({"x": rows}, rows[:, 0].copy()) for rows in (words(128, seed=1), words(300, seed=2)))
    task = Task(
        name="masked",
        inputs=[TensorSpec("x", (LENGTH,), "int64")],
        labels=[str(token) for token in range(TOKENS)],
        model=MASKS[name],
        data=lambda: TaskData(train=train, held_out=held_out),
        local=LocalTraining(learning_rate=0.05, batch_size=4),
    )
    return FloatModel(task=task, model=model.eval(), calibration=train, train=train)
