"""Trains the digits' network by a plain torch script, without Hedgerow, and saves its state dict."""

import sys
from pathlib import Path

import torch
from digits_data import TRAIN, digits
from torch import nn


def main() -> None:
    """Train and save."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 4 * 4, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip
    data = digits().take(TRAIN)
    images, labels = torch.from_numpy(data.inputs["image"]) / 16, torch.from_numpy(data.target_values)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _epoch in range(15):
        for batch in torch.randperm(len(images)).split(64):  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    file = Path(sys.argv[1])
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), file)


if __name__ == "__main__":
    main()
