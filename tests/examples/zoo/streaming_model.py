"""The zoo's streaming detector, trained and compiled once for the tests of a run that need it."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.compile.outcome import Outcome
from hedgerow.compile.pipeline import compile_targets
from hedgerow.examples.zoo import ZOO
from hedgerow.manifest.artifact import Artifact
from hedgerow.task import Dataset, Task, load_task

RECIPES = {
    "raspberry-pi-4": "onnx-int8-s8s8",
    "raspberry-pi-5": "onnx-float",
    "android-arm64": "tflite-int8-full",
    "cortex-m7": "tflite-int8-full",
    "esp32-s3": "tflite-int16-full",
    "iphone-15": "coreml-int8-weights",
}


@dataclass(frozen=True)
class Trained:
    """The task, its trained torch model, and a build of it."""

    task: Task
    model: Any
    folder: Path
    outcome: Outcome

    def artifact(self, target: str) -> Artifact:
        """Return what was compiled for a target."""
        return next(artifact for artifact in self.outcome.build.artifacts if artifact.target == target)

    def content(self, target: str) -> bytes:
        """Return the file of a target."""
        return (self.folder / "build" / "blobs" / self.artifact(target).blob.sha256).read_bytes()

    def in_torch(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probabilities of a sequence, the torch model called step by step with its state."""
        import torch

        state, rows = torch.zeros(2, 1, 32), []
        with torch.no_grad():
            for frame in torch.from_numpy(frames):
                logits, state = self.model(frame[None], state)
                rows.append(torch.softmax(logits, dim=1)[0].numpy())
        return np.stack(rows)


@cache
def trained() -> Trained:
    """Train and compile the detector."""
    import torch

    from hedgerow.examples.zoo.training import save_trained, train_centrally

    entry = ZOO["streaming"]
    task = load_task(entry.task)
    data = task.load_data()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = train_centrally(task, data, epochs=entry.epochs, learning_rate=entry.learning_rate)
    torch.set_num_threads(threads)
    folder = Path(mkdtemp(prefix="streaming-"))
    save_trained(folder / "run", task, model, data, epochs=entry.epochs)
    outcome = compile_targets(entry.task, folder / "run", list(RECIPES), folder / "build", recipes=RECIPES, jobs=1)
    return Trained(task, model, folder, outcome)


def fresh(count: int) -> Dataset:
    """Return recordings that neither training nor verification has seen."""
    from hedgerow.examples.zoo.streaming import recordings

    return recordings(count, np.random.default_rng(777))
