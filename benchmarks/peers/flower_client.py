"""Flower's own torch ClientApp, as its quickstart has it, with what costs most made resident in favour of Flower.

Its example loads data and makes a model and a DataLoader for every message. Here a process loads the data once, keeps
one model, and slices batches out of a shuffled copy of the client's samples.
"""

import functools
from typing import Any

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from benchmarks.peers.works import WORKS, Work, load_samples, make_network, owned_by

__all__ = ["make_client_app"]


class _Resident:
    """What one process keeps between messages."""

    def __init__(self, work: Work, device: str) -> None:
        train, _held_out = load_samples(work)
        self.inputs = torch.from_numpy(train.inputs).to(device)
        self.labels = torch.from_numpy(train.labels).to(device)
        self.owned = owned_by(work, train.labels)
        self.network = make_network(work.network).to(device).train()


@functools.cache
def _resident(name: str, device: str) -> _Resident:
    return _Resident(WORKS[name], device)


def _train(work: Work, resident: _Resident, client: int) -> float:
    indices = torch.from_numpy(resident.owned(client)).to(resident.labels.device)
    optimizer = torch.optim.SGD(resident.network.parameters(), lr=work.learning_rate)
    total = 0.0
    for _ in range(work.epochs):
        order = indices[torch.randperm(len(indices), device=indices.device)]
        batches = [values[order].split(work.batch_size) for values in (resident.inputs, resident.labels)]
        for inputs, labels in zip(*batches, strict=True):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(resident.network(inputs), labels)
            loss.backward()
            optimizer.step()
            total += loss.item()
    return total / max(work.steps, 1)


def make_client_app(name: str, device: str = "cpu") -> ClientApp:
    """Return the ClientApp of one work; a work of no epochs answers with the arrays that came."""
    app = ClientApp()
    work = WORKS[name]

    @app.train()
    def train(message: Message, context: Context) -> Message:
        record: Any = message.content["arrays"]
        loss = 0.0
        if work.epochs:
            resident = _resident(name, device)
            resident.network.load_state_dict(record.to_torch_state_dict())
            loss = _train(work, resident, int(context.node_config["partition-id"]))
            record = ArrayRecord(resident.network.state_dict())
        metrics = MetricRecord({"train_loss": loss, "num-examples": work.samples})
        return Message(RecordDict({"arrays": record, "metrics": metrics}), reply_to=message)

    return app
