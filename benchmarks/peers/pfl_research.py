"""pfl-research's simulator, put together as its own CIFAR10 benchmark does (benchmarks/image_classification/pytorch).

``SimulatedBackend``, ``FederatedAveraging``, resident tensors, users sampled at random, evaluation of users switched
off after the first round. Several processes: ``torchrun --nproc_per_node=4 -m benchmarks.peers.pfl_research ...``, the
way its documentation prefers. Runs in any environment with ``pfl`` and torch.
"""

import types
from typing import Any

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByUser
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data import FederatedDataset
from pfl.data.dataset import Dataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.internal.ops.pytorch_ops import distributed, get_default_device, to_tensor
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from torch import nn

from benchmarks.peers.report import Clock, parser_of, work_of, write_report
from benchmarks.peers.works import Samples, Work, accuracy, load_samples, make_network, owned_by

_NEVER = 10**9


def _loss(self: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    self.train()
    return nn.functional.cross_entropy(self(inputs), targets.long())  # pfl keeps labels as floats, its benchmark too


@torch.no_grad()
def _metrics(self: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> dict[str, Any]:
    self.eval()
    correct = (self(inputs).argmax(-1) == targets).float().sum().item()
    return {"accuracy": Weighted(correct, len(inputs))}


class _Laps(TrainingProcessCallback):
    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def after_central_iteration(self, aggregate_metrics: Metrics, model: Any, *, central_iteration: int) -> Any:
        """End a round."""
        del aggregate_metrics, model, central_iteration
        if get_default_device().type == "cuda":
            torch.cuda.synchronize()
        self._clock.lap()
        return False, Metrics()


def _users(work: Work, train: Samples) -> FederatedDataset:
    images, labels = to_tensor(train.inputs), to_tensor(train.labels)
    owned, sampler = owned_by(work, train.labels), get_user_sampler("random", range(work.clients))

    def samples_of(user: int) -> tuple[torch.Tensor, torch.Tensor]:
        indices = torch.from_numpy(owned(user)).to(images.device)
        return images[indices], labels[indices]

    if work.drawn:
        return FederatedDataset(lambda user: Dataset(samples_of(user), user_id=user), sampler)
    return FederatedDataset.from_slices({user: samples_of(user) for user in range(work.clients)}, sampler)


def run(work: Work) -> dict[str, Any] | None:
    """Train; return the figures in the first process and None in the others."""
    train, held_out = load_samples(work)
    clock = Clock(work)
    network = make_network(work.network)
    network.loss = types.MethodType(_loss, network)
    network.metrics = types.MethodType(_metrics, network)
    network = network.to(get_default_device())
    np.random.seed(0)  # noqa: NPY002 - pfl draws users from numpy's global generator
    central = torch.optim.SGD(network.parameters(), 1.0)
    model = PyTorchModel(model=network, local_optimizer_create=torch.optim.SGD, central_optimizer=central)
    users = _users(work, train)
    backend = SimulatedBackend(training_data=users, val_data=users, postprocessors=[WeightByUser()])
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=work.warm_up + work.rounds,
            evaluation_frequency=_NEVER,
            train_cohort_size=work.cohort,
            val_cohort_size=0,
        ),
        backend=backend,
        model=model,
        model_train_params=NNTrainHyperParams(
            local_learning_rate=work.learning_rate,
            local_num_epochs=work.epochs,
            local_batch_size=work.batch_size,
        ),
        model_eval_params=NNEvalHyperParams(local_batch_size=work.samples),
        callbacks=[_Laps(clock)],
    )
    if distributed.global_rank != 0:
        return None
    return {**clock.figures(), "accuracy": accuracy(network.cpu(), held_out)}


def main() -> None:
    """Measure."""
    chosen = parser_of("pfl_research", "pfl-research's simulator").parse_args()
    torch.set_num_threads(chosen.threads)
    figures = run(work_of(chosen))
    if figures is not None:
        write_report(figures, ("pfl",))


if __name__ == "__main__":
    main()
