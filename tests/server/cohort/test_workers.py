"""Worker processes train a cohort as the plain loop does, whatever their number, and leave nothing behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

pytestmark = pytest.mark.heavy
torch = pytest.importorskip("torch")

from hedgerow.local_work import LocalWork  # noqa: E402
from hedgerow.server.cohort.clients import ClientSlices, Indices  # noqa: E402
from hedgerow.server.cohort.engine import CohortUpdate  # noqa: E402
from hedgerow.server.cohort.errors import ClientTrainingError  # noqa: E402
from hedgerow.server.cohort.sequential import SequentialEngine  # noqa: E402
from hedgerow.server.cohort.workers import WorkersEngine  # noqa: E402
from hedgerow.task import Dataset, Task  # noqa: E402
from tests.processes import wait_until  # noqa: E402
from tests.server.cohort.small_tasks import (  # noqa: E402
    MODELS,
    SIZES,
    image_task,
    images,
    mlp,
    start_weights,
    unequal_clients,
)

WORK = LocalWork(round=2, seed=3, epochs=1, learning_rate=0.05, batch_size=8, epochs_of={4: 2})
COHORT = (3, 0, 6, 4, 2)
DATA = images(sum(SIZES), 2)


@contextlib.contextmanager
def engine(model: str = "mlp", *, workers: int = 2, rows: int | None = None) -> Iterator[WorkersEngine]:
    with WorkersEngine(image_task(MODELS[model]), DATA, unequal_clients(), workers=workers, rows=rows) as made:
        yield made


def train(
    made: WorkersEngine | SequentialEngine,
    work: LocalWork = WORK,
    *,
    model: str = "mlp",
    each: bool = False,
    cohort: Sequence[int] = COHORT,
    corrections: Mapping[str, "torch.Tensor"] | None = None,
) -> CohortUpdate:
    weights = start_weights(image_task(MODELS[model]))
    (update,) = made.train(weights, cohort, work, each=each, corrections=corrections)
    return update


def same(one: CohortUpdate, other: CohortUpdate, tolerance: float) -> None:
    assert one.clients == other.clients
    np.testing.assert_array_equal(one.examples, other.examples)
    np.testing.assert_allclose(one.losses, other.losses, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(one.norms, other.norms, rtol=tolerance, atol=tolerance)
    for mine, its in ((one.mean, other.mean), (one.each, other.each)):
        assert (mine is None) == (its is None)
        for name, tensor in (its or {}).items():
            assert mine is not None
            assert mine[name].dtype == tensor.dtype
            torch.testing.assert_close(mine[name], tensor, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("model", sorted(MODELS))
def test_results_equal_the_plain_loop(model: str) -> None:
    with engine(model) as made, SequentialEngine(image_task(MODELS[model]), DATA, unequal_clients()) as plain:
        assert (made.step == "traced") == (model != "gru"), made.step
        for each in (False, True):
            same(train(made, model=model, each=each), train(plain, model=model, each=each), 1e-5)


@pytest.mark.parametrize("model", ["cnn", "mlp"])
def test_every_kind_of_local_work_equals_the_plain_loop(model: str) -> None:
    kinds = [
        replace(WORK, momentum=0.9, epochs=2),
        replace(WORK, optimizer="adam", learning_rate=0.001),
        replace(WORK, proximal_mu=0.5, weight_decay=0.01),
        replace(WORK, clip_norm=0.01),
        replace(WORK, batch_size=5),
    ]
    with engine(model) as made, SequentialEngine(image_task(MODELS[model]), DATA, unequal_clients()) as plain:
        for work in kinds:
            same(train(made, work, model=model), train(plain, work, model=model), 1e-5)
        weights = start_weights(image_task(MODELS[model]))
        rng = torch.Generator().manual_seed(1)
        corrections = {
            name: 0.1 * torch.randn(len(COHORT), *tensor.shape, generator=rng) for name, tensor in weights.items()
        }
        for each in (False, True):
            same(
                train(made, model=model, each=each, corrections=corrections),
                train(plain, model=model, each=each, corrections=corrections),
                1e-5,
            )


@pytest.mark.parametrize("model", ["dropout", "resnet8"])
def test_results_are_the_same_to_the_bit_for_any_number_of_workers_and_slices(model: str) -> None:
    found = []
    for workers, rows in ((1, None), (2, None), (4, None), (2, 2)):
        with engine(model, workers=workers, rows=rows) as made:
            found.append(train(made, model=model))
    for other in found[1:]:
        same(found[0], other, 0.0)


def test_the_mean_is_that_of_each_weighted_by_examples() -> None:
    with engine() as made:
        each = train(made, each=True)
        assert each.each is not None
        shares = torch.from_numpy(each.examples / each.examples.sum())
        expected = {name: torch.einsum("k,k...->...", shares, rows.double()) for name, rows in each.each.items()}
        mean = train(made).mean
        assert mean is not None
        for name, tensor in expected.items():
            torch.testing.assert_close(mean[name].double(), tensor, rtol=1e-6, atol=1e-7)


def test_slices_of_each_may_be_kept_together() -> None:
    with engine(rows=2) as made:
        weights = start_weights(image_task(mlp))
        slices = list(made.train(weights, COHORT, WORK, each=True))
    with engine() as made:
        whole = train(made, each=True)
        assert whole.each is not None
        assert [part.clients for part in slices] == [(3, 0), (6, 4), (2,)]
        for name, rows in whole.each.items():
            assert torch.equal(torch.cat([part.each[name] for part in slices if part.each is not None]), rows)


def test_large_models_are_summed_by_the_workers_to_the_same_bits() -> None:
    def wide() -> "torch.nn.Module":
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(300, 2000), torch.nn.Linear(2000, 4))

    task = image_task(wide)
    found = []
    for workers, rows in ((1, None), (3, None), (2, 4)):
        with WorkersEngine(task, DATA, unequal_clients(), workers=workers, rows=rows) as made:
            (update,) = made.train(start_weights(task), COHORT, WORK, each=False)
            found.append(update)
    with SequentialEngine(task, DATA, unequal_clients()) as plain:
        (expected,) = plain.train(start_weights(task), COHORT, WORK, each=False)
    for other in found[1:]:
        same(found[0], other, 0.0)
    same(found[0], expected, 1e-5)


def test_rounds_and_batch_sizes_follow_each_other_in_one_engine() -> None:
    with engine() as made, SequentialEngine(image_task(mlp), DATA, unequal_clients()) as plain:
        before = made.process_ids
        for number in range(1, 30):
            work = replace(WORK, round=number)
            update = train(made, work, cohort=[number % 8, (number + 3) % 8])
        assert made.process_ids == before
        same(update, train(plain, work, cohort=[29 % 8, 32 % 8]), 1e-5)
        same(train(made, replace(WORK, batch_size=3)), train(plain, replace(WORK, batch_size=3)), 1e-5)


def test_a_parent_that_has_used_many_threads_can_fork_workers() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        torch.randn(600, 600) @ torch.randn(600, 600)
        torch.nn.functional.conv2d(torch.randn(8, 3, 64, 64), torch.randn(16, 3, 3, 3))
        torch.randn(10**6).exp()
        with engine("cnn") as made:
            train(made, model="cnn")
    finally:
        torch.set_num_threads(before)


def test_other_models_weights_are_refused() -> None:
    with engine() as made:
        weights = start_weights(image_task(mlp))
        with pytest.raises(ValueError, match="another model's"):
            list(made.train({"other": weights["1.weight"]}, COHORT, WORK, each=False))
        weights["1.weight"] = weights["1.weight"][:2]
        with pytest.raises(ValueError, match=r"1\.weight has the shape"):
            list(made.train(weights, COHORT, WORK, each=False))


def test_a_client_that_raises_is_named_and_the_next_round_runs() -> None:
    labels = DATA.target_values.copy()
    labels[unequal_clients().indices(6)] = 99
    with WorkersEngine(image_task(mlp), Dataset(DATA.inputs, labels), unequal_clients(), workers=2) as made:
        with pytest.raises(
            ClientTrainingError, match=r"client 6 to succeed, found that it raised IndexError.* 99"
        ) as info:
            train(made)
        assert info.value.client == 6
        assert train(made, cohort=[0, 1]).clients == (0, 1)


class _DeadlyClients:
    """Clients of which one ends the process that asks for its samples."""

    def __init__(self, deadly: int) -> None:
        self._clients, self._deadly, self._owner = unequal_clients(), deadly, os.getpid()

    def __len__(self) -> int:
        return len(self._clients)

    def size(self, client: int) -> int:
        return self._clients.size(client)

    def indices(self, client: int) -> Indices:
        if client == self._deadly and os.getpid() != self._owner:
            os.kill(os.getpid(), signal.SIGKILL)
        return self._clients.indices(client)


def test_a_worker_that_dies_is_an_error_that_names_its_client() -> None:
    with WorkersEngine(image_task(mlp), DATA, _DeadlyClients(4), workers=2) as made:
        with pytest.raises(ClientTrainingError, match=r"client 4 .* ended by SIGKILL"):
            train(made)
        assert train(made, cohort=[0, 1]).clients == (0, 1)


def test_a_worker_that_dies_between_rounds_is_replaced() -> None:
    with engine() as made:
        first = train(made)
        os.kill(made.process_ids[0], signal.SIGKILL)
        psutil.Process(made.process_ids[0]).wait(5)
        same(train(made), first, 0.0)


def test_closing_leaves_no_process_descriptor_or_shared_memory() -> None:
    with engine() as made:  # what the first one makes for good, such as a selector's module, is not counted
        train(made)
    process = psutil.Process()
    before = (process.num_fds(), len(process.children()), sorted(Path("/dev/shm").iterdir()))  # noqa: S108
    with engine() as made:
        result = train(made, each=True)
        assert len(made.process_ids) == 2
    with contextlib.suppress(ZeroDivisionError), engine() as made:
        raise ZeroDivisionError
    forgotten = WorkersEngine(image_task(mlp), DATA, unequal_clients(), workers=2)
    del forgotten
    assert made.process_ids == ()
    assert (process.num_fds(), len(process.children()), sorted(Path("/dev/shm").iterdir())) == before  # noqa: S108
    assert result.each is not None
    assert result.each["1.weight"].isfinite().all()  # what a caller still holds stays there


_PARENT = """
import sys, time
from tests.server.cohort.test_workers import DATA, WORK, _SleepyClients, image_task, mlp, start_weights
from hedgerow.server.cohort.workers import WorkersEngine
made = WorkersEngine(image_task(mlp), DATA, _SleepyClients(), workers=2)
print(*made.process_ids, flush=True)
if sys.argv[1] == "busy":
    list(made.train(start_weights(image_task(mlp)), (0, 1, 2, 3), WORK, each=False))
time.sleep(60)
"""


_BUSY = "WORKERS_THAT_ARE_BUSY"
"""The variable that names the folder in which busy workers leave their process numbers."""


class _SleepyClients(_DeadlyClients):
    """Clients whose samples take a minute to come."""

    def __init__(self) -> None:
        super().__init__(deadly=-1)

    def indices(self, client: int) -> Indices:
        (Path(os.environ[_BUSY]) / str(os.getpid())).touch()
        time.sleep(60)
        return super().indices(client)


def _spawned(state: str, busy: Path) -> "subprocess.Popen[str]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1", _BUSY: str(busy)}
    return subprocess.Popen([sys.executable, "-c", _PARENT, state], stdout=subprocess.PIPE, text=True, env=environment)


def test_workers_end_with_their_parent_however_it_ends(tmp_path: Path) -> None:
    ends = [("idle", signal.SIGKILL), ("busy", signal.SIGKILL), ("busy", signal.SIGTERM)]
    with contextlib.ExitStack() as stack:
        parents = [stack.enter_context(_spawned(state, tmp_path)) for state, _sent in ends]
        workers = []
        for parent in parents:
            assert parent.stdout is not None
            workers += [psutil.Process(int(number)) for number in parent.stdout.readline().split()]
        assert len(workers) == 6
        wait_until(lambda: len(list(tmp_path.iterdir())) == 4, timeout_s=60)
        for parent, (_state, sent) in zip(parents, ends, strict=True):
            parent.send_signal(sent)
    assert psutil.wait_procs(workers, timeout=10)[1] == []


def test_only_cores_are_engines_of_this_kind() -> None:
    task: Task = image_task(mlp)
    with pytest.raises(ValueError, match="expected the device cpu, found meta"):
        WorkersEngine(task, DATA, unequal_clients(), device="meta")
    with pytest.raises(ValueError, match="at least one worker"):
        WorkersEngine(task, DATA, unequal_clients(), workers=0)
    assert isinstance(unequal_clients(), ClientSlices)
