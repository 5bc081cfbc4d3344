"""Recurrent layers, by the formulas of Core ML's operator documentation. Results are rounded, states inside are not."""

from collections.abc import Callable, Mapping

import torch

from hedgerow.compile.coreml_evaluation.operation import NotEvaluatedError, Operation, Operator, Values

__all__ = ["RECURRENT"]

_Activation = Callable[[torch.Tensor], torch.Tensor]
_ACTIVATIONS: Mapping[str, _Activation] = {
    "linear": lambda x: x,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "sigmoid_hard": lambda x: (0.2 * x + 0.5).clamp(0, 1),
    "scaled_tanh": lambda x: 1.7159 * torch.tanh(2 / 3 * x),
    "tanh": torch.tanh,
}


def _activation(call: Operation, argument: str, default: str) -> _Activation:
    name = str(call.constant(argument, default))
    if name not in _ACTIVATIONS:
        raise NotEvaluatedError(call.kind, f"with the activation {name}")
    return _ACTIVATIONS[name]


def _product(call: Operation, values: Values, ending: str = "") -> torch.Tensor:
    """Return the inputs' product of all steps, with the bias: ``(steps, batch, gates * hidden)``."""
    product = call.tensor(values, "x") @ call.tensor(values, f"weight_ih{ending}").transpose(0, 1)
    bias = call.optional(values, f"bias{ending}")
    return product if bias is None else product + bias


def _steps(
    products: torch.Tensor,
    step: Callable[[torch.Tensor, tuple[torch.Tensor, ...]], tuple[torch.Tensor, ...]],
    state: tuple[torch.Tensor, ...],
    *,
    backwards: bool,
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    outputs = []
    for product in products.flip(0).unbind(0) if backwards else products.unbind(0):
        state = step(product, state)
        outputs.append(state[0])
    return torch.stack(outputs[::-1] if backwards else outputs), state


def _given(call: Operation, outputs: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    return outputs if call.constant("output_sequence", False) else last.unsqueeze(0)


def _lstm(call: Operation, values: Values) -> tuple[torch.Tensor, ...]:
    if any(name in call.arguments for name in ("peephole", "peephole_back", "clip")):
        raise NotEvaluatedError(call.kind, "with peepholes or a bound")
    gate, cell, output = (
        _activation(call, name, default)
        for name, default in (
            ("recurrent_activation", "sigmoid"), ("cell_activation", "tanh"), ("activation", "tanh"),
        )
    )  # fmt: skip
    direction = str(call.constant("direction", "forward"))
    endings = ("", "_back") if direction == "bidirectional" else ("",)
    hidden, memory = call.tensor(values, "initial_h"), call.tensor(values, "initial_c")
    width = hidden.shape[-1] // len(endings)
    found = []
    for place, ending in enumerate(endings):
        weight = call.tensor(values, f"weight_hh{ending}")

        def step(
            product: torch.Tensor, state: tuple[torch.Tensor, ...], weight: torch.Tensor = weight
        ) -> tuple[torch.Tensor, ...]:
            taken, kept, shown, new = (product + state[0] @ weight.transpose(0, 1)).chunk(4, -1)
            inside = gate(kept) * state[1] + gate(taken) * cell(new)
            return gate(shown) * output(inside), inside

        part = slice(place * width, (place + 1) * width)
        backwards = place == 1 or direction == "reverse"
        found.append(
            _steps(_product(call, values, ending), step, (hidden[:, part], memory[:, part]), backwards=backwards)
        )
    outputs = torch.cat([rows for rows, _state in found], -1)
    last, inside = (torch.cat([state[number] for _rows, state in found], -1) for number in (0, 1))
    return _given(call, outputs, last), last, inside


def _gru(call: Operation, values: Values) -> tuple[torch.Tensor, ...]:
    gate, new = _activation(call, "recurrent_activation", "sigmoid"), _activation(call, "activation", "tanh")
    weight = call.tensor(values, "weight_hh")
    # Core ML's order is reset, output, update; one bias stands for both sides, outside the reset gate.
    to_reset, to_new, to_update = weight.chunk(3)

    def step(product: torch.Tensor, state: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        (hidden,), (reset, candidate, update) = state, product.chunk(3, -1)
        reset = gate(reset + hidden @ to_reset.transpose(0, 1))
        update = gate(update + hidden @ to_update.transpose(0, 1))
        candidate = new(candidate + reset * (hidden @ to_new.transpose(0, 1)))
        return ((1 - update) * candidate + update * hidden,)

    backwards = str(call.constant("direction", "forward")) == "reverse"
    outputs, (last,) = _steps(_product(call, values), step, (call.tensor(values, "initial_h"),), backwards=backwards)
    return _given(call, outputs, last), last


def _rnn(call: Operation, values: Values) -> tuple[torch.Tensor, ...]:
    activation, weight = _activation(call, "activation", "tanh"), call.tensor(values, "weight_hh")

    def step(product: torch.Tensor, state: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (activation(product + state[0] @ weight.transpose(0, 1)),)

    backwards = str(call.constant("direction", "forward")) == "reverse"
    outputs, (last,) = _steps(_product(call, values), step, (call.tensor(values, "initial_h"),), backwards=backwards)
    return _given(call, outputs, last), last


RECURRENT: Mapping[str, Operator] = {"gru": _gru, "lstm": _lstm, "rnn": _rnn}
