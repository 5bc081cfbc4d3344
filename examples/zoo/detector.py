"""A detector with two outputs: what stands in the picture, and where.

A task says one output today, the classes; so the task here is the detector without its box. The whole is trained and
exported by the owner's own code below (``bring``), and comes to Hedgerow as files::

    hedgerow compile --artifact detector.onnx --task hedgerow.examples.zoo.detector:task --target raspberry-pi-5
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from hedgerow import Dataset, LocalTraining, Task, TaskData, TensorSpec

SHAPES = ("disc", "square", "triangle", "ring")
SIZE = 32
OUTPUTS = ("probabilities", "box")


def _layer(channels: int, out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU())


class Detector(nn.Module):
    """One trunk, two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(_layer(1, 16, 1), _layer(16, 32, 2), _layer(32, 48, 2), _layer(48, 48, 2))
        self.shared = nn.Sequential(nn.Flatten(), nn.Linear(48 * 16, 64), nn.ReLU())
        self.classes, self.box = nn.Linear(64, len(SHAPES)), nn.Linear(64, 4)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits ``(batch, 4)`` and boxes ``(batch, 4)``: centre, width and height in parts of the picture."""
        seen = self.shared(self.trunk(image))
        return self.classes(seen), torch.sigmoid(self.box(seen))


class Classes(Detector):
    """The detector without its box: what a task can say of it."""

    def __init__(self) -> None:
        super().__init__()
        self.box.requires_grad_(False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Return logits ``(batch, 4)``."""
        return super().forward(image)[0]


class Served(nn.Module):
    """The detector as it is exported: pictures as the camera gives them -> probabilities and boxes."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return probabilities ``(batch, 4)`` and boxes ``(batch, 4)``."""
        logits, box = self.detector(prepared(image))
        return torch.softmax(logits, dim=-1), box


def prepared(image: torch.Tensor) -> torch.Tensor:
    """Return pictures as the detector takes them."""
    return (image - 128) / 64


def scenes(count: int, rng: np.random.Generator) -> Dataset:
    """Return noisy pictures with one shape in each; its box is the column ``box``, ``float32[n, 4]``."""
    labels = rng.integers(0, len(SHAPES), count)
    half = rng.uniform(4, 10, (count, 2))
    centre = half + rng.uniform(0, 1, (count, 2)) * (SIZE - 2 * half)
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] + 0.5
    x = (columns - centre[:, 0, None, None]) / half[:, 0, None, None]
    y = (rows - centre[:, 1, None, None]) / half[:, 1, None, None]
    radius = np.hypot(x, y)
    square = np.maximum(np.abs(x), np.abs(y)) < 1
    inside = np.stack([radius < 1, square, square & (y > 2 * np.abs(x) - 1), (radius < 1) & (radius > 0.55)])
    depth = rng.choice([-1.0, 1.0], (count, 1, 1)) * rng.uniform(25, 70, (count, 1, 1))
    images = rng.uniform(90, 160, (count, 1, 1)) + depth * inside[labels, np.arange(count)]
    images = np.clip(np.round(images + rng.normal(0, 20, images.shape)), 0, 255)
    boxes = np.concatenate([centre, 2 * half], axis=1) / SIZE
    return Dataset({"image": images[:, None].astype(np.float32)}, labels, {"box": boxes.astype(np.float32)})


def data() -> TaskData:
    """Return 2,000 scenes to train on and 500 held out."""
    rng = np.random.default_rng(4)
    return TaskData(train=scenes(2000, rng), held_out=scenes(500, rng))


def detection_loss(found: tuple[torch.Tensor, torch.Tensor], labels: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Return cross-entropy of the classes and the smooth distance of the boxes."""
    logits, box = found
    return nn.functional.cross_entropy(logits, labels) + 20 * nn.functional.smooth_l1_loss(box, boxes)


def train_detector(train: Dataset, *, epochs: int = 8, learning_rate: float = 0.003, seed: int = 0) -> Detector:
    """Return a detector that was trained on both outputs, always the same one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Detector()
    draws = torch.Generator().manual_seed(seed)
    images, labels = (
        prepared(torch.from_numpy(train.inputs["image"])),
        torch.from_numpy(np.asarray(train.target_values)),
    )
    boxes = torch.from_numpy(train.columns["box"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    for _ in range(epochs):
        for chosen in torch.split(torch.randperm(len(labels), generator=draws), 32):
            optimizer.zero_grad()
            loss = detection_loss(model(images[chosen]), labels[chosen], boxes[chosen])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model.eval()


def bring(folder: Path, detector: Detector | None = None) -> dict[str, Path]:
    """Export the detector as its owner would; return format -> file.

    Args:
        folder: Where the files are written.
        detector: None: one that is trained now.
    """
    import litert_torch

    served = Served(detector or train_detector(data().train)).eval()
    example = (torch.zeros(1, 1, SIZE, SIZE),)
    found = {"onnx": folder / "detector.onnx", "tflite": folder / "detector.tflite"}
    torch.onnx.export(
        served, example, found["onnx"], input_names=["image"], output_names=list(OUTPUTS), external_data=False
    )
    litert_torch.convert(served, example).export(str(found["tflite"]))
    return found


task = Task(
    name="zoo-detector",
    inputs=[TensorSpec("image", (1, SIZE, SIZE), unit="intensity", minimum=0, maximum=255)],
    labels=SHAPES,
    model=Classes,
    data=data,
    preprocess=prepared,
    local=LocalTraining(learning_rate=0.05),
)
