"""A small task of each kind of output, with a known answer, for the tests of every folder; torch is imported when used.

All take the same input, four numbers, and learn within a few rounds; ``tests/output_tasks.py:values`` names one as a
user would.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow import (
    Classes,
    Custom,
    Dataset,
    Labels,
    LocalTraining,
    Partition,
    Reconstruction,
    State,
    Task,
    TaskData,
    TensorSpec,
    Tokens,
    Values,
)

WIDTH = 4
STEPS = 6
TRAIN, HELD_OUT = 240, 160
STREAMS = 80
OFFSET = np.float32(2.0)
_MAP = np.array(
    [[0.9, -0.3, 0.2, 0.5], [-0.4, 0.8, 0.6, -0.2], [-0.5, -0.6, -0.7, -0.4], [0.1, 0.7, -0.8, 0.3]], dtype=np.float32
)
_PLANE = np.array([[0.8, 0.4, -0.3, 0.5], [-0.2, 0.6, 0.7, 0.3]], dtype=np.float32)

Target = NDArray[Any] | Mapping[str, NDArray[Any]] | None


def numbers(samples: int, seed: int) -> NDArray[np.float32]:
    """Return inputs of every task but the reconstruction's, ``float32[samples, 4]`` in [-4, 4]."""
    values = np.random.default_rng(seed).normal(0, 1.2, (samples, WIDTH))
    return np.clip(values, -4, 4).astype(np.float32)


def on_the_plane(samples: int, seed: int) -> NDArray[np.float32]:
    """Return normal inputs of the reconstruction: near a plane in four dimensions."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 1.2, (samples, 2)) @ _PLANE + rng.normal(0, 0.02, (samples, WIDTH))
    return np.clip(values, -4, 4).astype(np.float32)


def class_of(x: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return which of three sums of the inputs is the greatest."""
    return (x @ _MAP[:3].T).argmax(axis=-1)


def labels_of(x: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return which of three sums of the inputs are above nought."""
    return (x @ _MAP[:3].T > 0).astype(np.int64)


def values_of(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return two sums of the inputs."""
    return x @ _MAP[:2].T


def tokens_of(x: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return for each input whether it is low, in the middle or high."""
    return np.digitize(x, [-0.6, 0.6]).astype(np.int64)


def angle_of(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the direction in which two sums of the inputs point, in radians."""
    sums = values_of(x)
    return np.arctan2(sums[..., 1], sums[..., 0]).astype(np.float32)


def both_of(x: NDArray[np.float32]) -> Mapping[str, NDArray[Any]]:
    """Return the target values of two outputs."""
    return {"state": class_of(x), "level": values_of(x)}


ANSWERS: Mapping[str, Callable[[NDArray[np.float32]], Any]] = {
    "classes": class_of,
    "labels": labels_of,
    "values": values_of,
    "tokens": tokens_of,
    "custom": angle_of,
    "several": both_of,
}
"""Kind -> the target values of inputs; a reconstruction has none but what somebody says of a sample."""


def met(kind: str, samples: int, seed: int, *, is_moved: bool = False) -> tuple[NDArray[np.float32], Any]:
    """Return what a device meets, and the target values of it.

    Args:
        kind: Of the task.
        samples: How many.
        seed: Of what is drawn.
        is_moved: Whether the world is another one by now: the sensor gives every number with an offset, and of a
            reconstruction one of them mirrored too, which leads out of the plane.
    """
    if kind == "reconstruction":
        x, anomalous = _judged(samples, seed)
        mirrored = x * np.asarray([1, 1, -1, 1], np.float32)
        return (np.clip(mirrored + OFFSET, -4, 4) if is_moved else x), anomalous
    x = numbers(samples, seed)
    return (np.clip(x + OFFSET, -4, 4) if is_moved else x), ANSWERS[kind](x)


def _judged(samples: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    x, anomalous = on_the_plane(samples, seed), (np.arange(samples) % 4 == 3).astype(np.int64)
    x[anomalous == 1] = numbers(int(anomalous.sum()), seed + 1)
    return x, anomalous


def _direction(given: Any, wanted: Any) -> Any:
    """Return the cosine of the angle between what is given and what is wanted; less for what is short."""
    length = (given.square().sum(dim=-1) + 0.1).sqrt()
    return (given[..., 0] * wanted.cos() + given[..., 1] * wanted.sin()) / length


def direction_loss(given: Any, wanted: Any) -> Any:
    """Return how far directions are apart on average, which can be traced."""
    return (1 - _direction(given, wanted)).mean()


def direction_score(given: Any, wanted: Any) -> Any:
    """Return 1 where the direction is right, 0 where it is the opposite one."""
    return ((1 + _direction(given, wanted)) / 2).clamp(0, 1)


def _network(outputs: int) -> Callable[[], Any]:
    def make() -> Any:
        from torch import nn

        return nn.Sequential(nn.Linear(WIDTH, 16), nn.ReLU(), nn.Linear(16, outputs))

    return make


def _bottleneck() -> Any:
    from torch import nn

    return nn.Sequential(nn.Linear(WIDTH, 2), nn.Linear(2, WIDTH))


def _positions() -> Any:
    from torch import nn

    return nn.Sequential(nn.Unflatten(1, (WIDTH, 1)), nn.Linear(1, 16), nn.ReLU(), nn.Linear(16, 3))


def _two_heads() -> Any:
    import torch
    from torch import nn

    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(WIDTH, 16), nn.ReLU())
            self.state, self.level = nn.Linear(16, 3), nn.Linear(16, 2)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            inner = self.body(x)
            return self.state(inner), self.level(inner)

    return TwoHeads()


def dataset_of(x: NDArray[np.float32], wanted: Target) -> Dataset:
    return Dataset({"x": x}, wanted, {"site": (np.arange(len(x)) % 2).astype(np.int64)})


def _supervised(answer: Callable[[NDArray[np.float32]], Target]) -> Callable[[], TaskData]:
    def data() -> TaskData:
        train, held_out = numbers(TRAIN, 1), numbers(HELD_OUT, 2)
        return TaskData(dataset_of(train, answer(train)), dataset_of(held_out, answer(held_out)))

    return data


def anomaly_data() -> TaskData:
    """Return normal samples without target values to train on, and held-out ones of which a quarter is anomalous."""
    return TaskData(dataset_of(on_the_plane(TRAIN, 1), None), dataset_of(*_judged(HELD_OUT, 2)))


def moved_anomaly_data() -> TaskData:
    """Return the same, with held-out samples of the moved world: the threshold is measured on them."""
    return TaskData(anomaly_data().train, dataset_of(*met("reconstruction", HELD_OUT, 2, is_moved=True)))


def make_task(name: str, outputs: Any, model: Callable[[], Any], data: Callable[[], TaskData], **changes: Any) -> Task:
    """Return a task over the four numbers."""
    settings: dict[str, Any] = {
        "inputs": [TensorSpec("x", (WIDTH,), "float32", minimum=-4, maximum=4)],
        "preprocess": lambda x: x / 2,
        "local": LocalTraining(learning_rate=0.2, batch_size=8, epochs=3),
        "partition": Partition("iid"),
    }
    return Task(name=name, outputs=outputs, model=model, data=data, **{**settings, **changes})


classes = make_task("kind-classes", Classes(["a", "b", "c"]), _network(3), _supervised(class_of))
labels = make_task("kind-labels", Labels(["hot", "wet", "loud"]), _network(3), _supervised(labels_of))
values = make_task(
    "kind-values",
    Values(["level", "flow"], tolerance=[1.0, 2.0], unit=["m", "l/s"]),
    _network(2),
    _supervised(values_of),
)
reconstruction = make_task("kind-reconstruction", Reconstruction(false_alarm_rate=0.05), _bottleneck, anomaly_data)
moved_reconstruction = make_task(
    reconstruction.name, Reconstruction(false_alarm_rate=0.05), _bottleneck, moved_anomaly_data
)
tokens = make_task("kind-tokens", Tokens(["low", "mid", "high"], WIDTH), _positions, _supervised(tokens_of))
custom = make_task(
    "kind-custom",
    Custom((2,), loss=direction_loss, score=direction_score),
    _network(2),
    _supervised(angle_of),
)
several = make_task(
    "kind-several",
    {"state": Classes(["a", "b", "c"]), "level": Values(["level", "flow"], tolerance=[1.0, 2.0], weight=2.0)},
    _two_heads,
    _supervised(both_of),
)

TASKS: Mapping[str, Task] = {
    "classes": classes,
    "labels": labels,
    "values": values,
    "reconstruction": reconstruction,
    "tokens": tokens,
    "custom": custom,
    "several": several,
}
"""One task of each kind, and one of two outputs."""

NAMES = {
    "classes": "accuracy",
    "labels": "F1 of the samples",
    "values": "worth of the values",
    "reconstruction": "share of right flags",
    "tokens": "share of right positions",
    "several": "score",
}
"""What each kind calls its score; a device scores no output of one's own."""


def smoothed(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the running mean of sequences that a streaming model keeps: half of it and half of the new step."""
    kept, rows = np.zeros_like(x[:, 0]), []
    for step in range(x.shape[1]):
        kept = (kept + x[:, step]) / 2
        rows.append(kept)
    return np.stack(rows, axis=1)


def _streamed(model: Callable[[], Any], *, rebuilds: bool) -> Callable[[], Any]:
    def make() -> Any:
        import torch
        from torch import nn

        class Streamed(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.body = model()

            def forward(self, x: torch.Tensor, kept: torch.Tensor) -> tuple[torch.Tensor, ...]:
                new = (kept + x) / 2
                given = self.body(x - kept) + kept if rebuilds else self.body(new)
                return (*given, new) if isinstance(given, tuple) else (given, new)

        return Streamed()

    return make


def _sequences(answer: Callable[[NDArray[np.float32]], Target] | None) -> Callable[[], TaskData]:
    def cut(flat: Target, streams: int) -> Target:
        if flat is None:
            return None
        if isinstance(flat, Mapping):
            return {name: part.reshape(streams, STEPS, *part.shape[1:]) for name, part in flat.items()}
        return flat.reshape(streams, STEPS, *flat.shape[1:])

    def data() -> TaskData:
        parts = []
        for streams, seed in ((STREAMS, 1), (STREAMS // 2, 2)):
            if answer is None:
                x = on_the_plane(streams * STEPS, seed)
                wanted: Target = None
                if seed == 2:
                    wanted = (np.arange(len(x)) % 4 == 3).astype(np.int64)
                    x[wanted == 1] = numbers(int(wanted.sum()), 3)
            else:
                x = numbers(streams * STEPS, seed)
                wanted = answer(smoothed(x.reshape(streams, STEPS, WIDTH)).reshape(x.shape))
            parts.append(dataset_of(x.reshape(streams, STEPS, WIDTH), cut(wanted, streams)))
        return TaskData(*parts)

    return data


def _streaming(task: Task, model: Callable[[], Any], answer: Callable[[NDArray[np.float32]], Target] | None) -> Task:
    return make_task(
        f"{task.name}-stream",
        task.answers,
        _streamed(model, rebuilds=answer is None),
        _sequences(answer),
        state={"kept": State((1, WIDTH))},
        local=LocalTraining(learning_rate=0.4, batch_size=8, epochs=4),
    )


STREAMING: Mapping[str, Task] = {
    "classes": _streaming(classes, _network(3), class_of),
    "labels": _streaming(labels, _network(3), labels_of),
    "values": _streaming(values, _network(2), values_of),
    "reconstruction": _streaming(reconstruction, _bottleneck, None),
    "tokens": _streaming(tokens, _positions, tokens_of),
    "custom": _streaming(custom, _network(2), angle_of),
    "several": _streaming(several, _two_heads, both_of),
}
"""The same with state: each step answers for the running mean of its sequence."""

streaming_values = STREAMING["values"]
