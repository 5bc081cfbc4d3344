"""Small networks of torch's plain recurrent layers, as users write them."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

from hedgerow.compile.pass_models import FloatModel
from hedgerow.schema import TensorSpec
from hedgerow.task import Dataset, LocalTraining, Task, TaskData

# More steps than TensorFlow Lite Micro joins tensors.
STEPS, CHANNELS, CLASSES = 12, 5, 4


class Last(nn.Module):
    """A recurrent layer over a series, then a classifier of the last step.

    Args:
        layer: The layer.
        width: Of its outputs.
        first: Whether the layer takes the batch first.
        start: The initial state: none, ``zeros`` as users write them, or ``learned``.
    """

    def __init__(self, layer: nn.RNNBase, width: int, *, first: bool = True, start: str = "") -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(width, CLASSES)
        self.first, self.start = first, start
        if start == "learned":
            places = layer.num_layers * (2 if layer.bidirectional else 1)
            self.hidden = nn.Parameter(0.3 * torch.randn(places, 1, layer.proj_size or layer.hidden_size))
            self.memory = nn.Parameter(0.3 * torch.randn(places, 1, layer.hidden_size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch = x.shape[0]
        x = x if self.first else x.transpose(0, 1)
        if self.start == "learned":
            states = self.hidden.expand(-1, batch, -1).contiguous(), self.memory.expand(-1, batch, -1).contiguous()
            found = self.layer(x, states if isinstance(self.layer, nn.LSTM) else states[0])[0]
        elif self.start == "zeros":
            found = self.layer(x, torch.zeros(self.layer.num_layers, batch, self.layer.hidden_size))[0]
        else:
            found = self.layer(x)[0]
        return self.head(found[:, -1] if self.first else found[-1])


class States(nn.Module):
    """A classifier of the last states of an LSTM in two directions, as many do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.LSTM(CHANNELS, 8, batch_first=True, bidirectional=True), nn.Linear(32, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _outputs, (hidden, memory) = self.layer(x)
        return self.head(torch.cat([hidden[0], hidden[1], memory[0], memory[1]], 1))


NETS: Mapping[str, Callable[[], nn.Module]] = {
    "lstm": lambda: Last(nn.LSTM(CHANNELS, 16, batch_first=True), 16),
    "gru": lambda: Last(nn.GRU(CHANNELS, 16, batch_first=True), 16),
    "rnn": lambda: Last(nn.RNN(CHANNELS, 16, batch_first=True), 16),
    "rnn, relu": lambda: Last(nn.RNN(CHANNELS, 16, nonlinearity="relu", batch_first=True), 16),
    "lstm, two ways, two layers": lambda: Last(
        nn.LSTM(CHANNELS, 8, num_layers=2, bidirectional=True, batch_first=True, dropout=0.2), 16
    ),
    "gru, two ways, batch second": lambda: Last(nn.GRU(CHANNELS, 8, num_layers=2, bidirectional=True), 16, first=False),
    "rnn, two ways, no biases": lambda: Last(nn.RNN(CHANNELS, 8, bidirectional=True, bias=False, batch_first=True), 16),
    "lstm, no biases, batch second": lambda: Last(nn.LSTM(CHANNELS, 16, bias=False), 16, first=False),
    "gru, no biases": lambda: Last(nn.GRU(CHANNELS, 16, bias=False, batch_first=True), 16),
    "lstm, learned start": lambda: Last(nn.LSTM(CHANNELS, 16, 2, batch_first=True), 16, start="learned"),
    "gru, learned start": lambda: Last(nn.GRU(CHANNELS, 16, batch_first=True), 16, start="learned"),
    "rnn, zeros at the start": lambda: Last(nn.RNN(CHANNELS, 16, batch_first=True), 16, start="zeros"),
    "lstm, projection": lambda: Last(nn.LSTM(CHANNELS, 16, 2, proj_size=6, bidirectional=True, batch_first=True), 12),
    "lstm, projection, learned start": lambda: Last(
        nn.LSTM(CHANNELS, 16, proj_size=6, batch_first=True), 6, start="learned"
    ),
    "lstm, states": States,
}
"""What a network is called -> what makes it."""


def series(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, STEPS, CHANNELS)).astype(np.float32)


def make_source(name: str, batch: int = 4) -> FloatModel:
    """Return the network *name* with random weights, and random series that it labels itself."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = NETS[name]().eval()
    values = series(96, seed=0)
    with torch.no_grad():
        labels = model(torch.from_numpy(values)).argmax(1).numpy()
    data = Dataset({"x": values}, labels)
    task = Task(
        name="recurrent",
        inputs=[TensorSpec("x", (STEPS, CHANNELS))],
        labels=[str(label) for label in range(CLASSES)],
        model=NETS[name],
        data=lambda: TaskData(train=data, held_out=data),
        local=LocalTraining(learning_rate=0.05, batch_size=batch),
    )
    return FloatModel(task=task, model=model, calibration=data, train=data)
