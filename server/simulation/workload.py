"""How much work a task's training step is: operations counted by running one, bytes from its weights. Needs torch."""

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from hedgerow.server.simulation.deadlines import DeviceWork
from hedgerow.task import Dataset, Task
from hedgerow.task_losses import loss_function
from hedgerow.task_module import LogitsModule, wanted_tensors

__all__ = ["work_of_task"]


def work_of_task(task: Task, dataset: Dataset, *, epochs: int | None = None) -> DeviceWork:
    """Return what a device does in a round of *task*.

    A step on two samples of *dataset* is run under torch's counter of operations, which counts matrix products and
    convolutions, forward and backward; what is element by element is left out, because time goes there by bandwidth and
    not by operations. The weights go down and up as they are in memory.

    Args:
        task: What is trained.
        dataset: Any of its data, at least two samples.
        epochs: Passes over a device's samples; None: the task's.
    """
    module = LogitsModule(task, task.model()).train()
    inputs = [torch.from_numpy(np.ascontiguousarray(dataset.inputs[spec.name][:2])) for spec in task.inputs]
    wanted = wanted_tensors(task, dataset.take([0, 1]))
    with torch.random.fork_rng(devices=[]), FlopCounterMode(display=False) as counter:
        loss_function(task)(module(*inputs), wanted).backward()  # type: ignore[no-untyped-call]
    tensors = module.state_dict().values()
    weight_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return DeviceWork(
        down_bytes=weight_bytes,
        up_bytes=weight_bytes,
        flops_per_sample=counter.get_total_flops() / len(inputs[0]),
        epochs=task.local.epochs if epochs is None else epochs,
    )
