"""What every runtime does: load an artifact and predict, load a train graph and take a step."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from hedgerow.manifest.artifact import Artifact
from hedgerow.manifest.train_graph import TrainGraph
from hedgerow.weights import Arrays

__all__ = ["LoadedModel", "Runtime", "TrainStep"]


class LoadedModel(Protocol):
    """A model in memory. May be called from any thread; calls wait for each other where the runtime demands it."""

    def predict(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the schema's outputs for a batch of any size.

        Args:
            inputs: The schema's inputs, each ``(batch, *shape)``.

        Returns:
            The schema's outputs, each ``(batch, *shape)``; quantized outputs as float32.
        """


TrainStep = Callable[
    [Mapping[str, NDArray[Any]], Mapping[str, NDArray[Any]], float, Mapping[str, NDArray[Any]]], tuple[float, Arrays]
]
"""``(inputs, target values by output, learning rate, parameters) -> (loss before the step, parameters after it)``.

Where the graph has extra inputs, they are among the parameters, under their own names; optimizer state comes back like
a parameter. What does not change may be missing from the result.
"""


class Runtime(Protocol):
    """Something that runs compiled files."""

    def load(self, path: Path, artifact: Artifact) -> LoadedModel:
        """Load an artifact.

        Raises:
            InstallError: The runtime does not take the file.
        """

    def load_train_graph(self, path: Path, graph: TrainGraph) -> TrainStep:
        """Load a train graph.

        Raises:
            InstallError: The runtime does not take the file.
        """
