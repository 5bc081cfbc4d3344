"""Flower's own torch ClientApp: as its quickstart has it, and with everything resident in favour of Flower.

The quickstart makes a model and a DataLoader for every message and loads the client's data. Here the data is in memory
in both forms. The resident one also keeps the model, and slices batches out of a shuffled copy of the client's samples.
"""

import functools
from typing import Any

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.peers.works import NETWORKS, WORKS, Work, load_samples, make_network, owned_by

__all__ = ["make_client_app"]


class _Resident:
    """What one process keeps between messages."""

    def __init__(self, work: Work, device: str) -> None:
        train, _held_out = load_samples(work)
        self.inputs = torch.from_numpy(train.inputs).to(device)
        self.labels = torch.from_numpy(train.labels).to(device)
        self.owned = owned_by(work, train.labels)
        self.network = make_network(work.network).to(device).train()
        self.device = device


@functools.cache
def _resident(name: str, device: str) -> _Resident:
    return _Resident(WORKS[name], device)


def _train_as_quickstart(work: Work, resident: _Resident, network: nn.Module, client: int) -> float:
    indices = torch.from_numpy(resident.owned(client))
    samples = TensorDataset(resident.inputs[indices], resident.labels[indices])
    loader = DataLoader(samples, batch_size=work.batch_size, shuffle=True)
    network.to(resident.device).train()
    criterion = nn.CrossEntropyLoss().to(resident.device)
    optimizer = torch.optim.SGD(network.parameters(), lr=work.learning_rate)
    total = 0.0
    for _ in range(work.epochs):
        for inputs, labels in loader:
            optimizer.zero_grad()
            loss = criterion(network(inputs.to(resident.device)), labels.to(resident.device))
            loss.backward()
            optimizer.step()
            total += loss.item()
    return total / max(work.steps, 1)


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


def make_client_app(name: str, device: str = "cpu", *, keeps_model: bool = True) -> ClientApp:
    """Return the ClientApp of one work; a work of no epochs answers with the arrays that came.

    Args:
        name: Of the work.
        device: Of torch.
        keeps_model: One model for all messages and no DataLoader, instead of new ones as Flower's quickstart makes.
    """
    app = ClientApp()
    work = WORKS[name]

    @app.train()
    def train(message: Message, context: Context) -> Message:
        record: Any = message.content["arrays"]
        loss = 0.0
        if work.epochs:
            resident = _resident(name, device)
            client = int(context.node_config["partition-id"])
            network = resident.network if keeps_model else NETWORKS[work.network][0]()
            network.load_state_dict(record.to_torch_state_dict())
            if keeps_model:
                loss = _train(work, resident, client)
            else:
                loss = _train_as_quickstart(work, resident, network, client)
            record = ArrayRecord(network.state_dict())
        metrics = MetricRecord({"train_loss": loss, "num-examples": work.samples})
        return Message(RecordDict({"arrays": record, "metrics": metrics}), reply_to=message)

    return app
