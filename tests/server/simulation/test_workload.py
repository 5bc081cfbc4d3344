from collections.abc import Callable

import numpy as np
import pytest

from hedgerow.task import Dataset, Task

pytestmark = pytest.mark.heavy


def test_operations_of_a_dense_layer_are_counted_forward_and_backward(tiny_task: Task):
    from hedgerow.server.simulation.workload import work_of_task

    work = work_of_task(tiny_task, tiny_task.load_data().train, epochs=3)
    # 2 x 3 weights: two operations for each in the forward pass and two for their gradient; none for the input's.
    assert work.flops_per_sample == 2 * (2 * 6)
    assert work.down_bytes == work.up_bytes == 9 * 4
    assert work.epochs == 3


def test_convolutions_are_counted(make_task: Callable[..., Task]):
    from torch import nn

    from hedgerow import TensorSpec
    from hedgerow.server.simulation.workload import work_of_task

    def model() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 6 * 6, 3))

    task = make_task(inputs=[TensorSpec("image", (1, 8, 8), "float32")], model=model)
    images = Dataset({"image": np.zeros((4, 1, 8, 8), np.float32)}, np.zeros(4, np.int64))
    convolution, dense = 36 * 4 * 9, 144 * 3
    # The convolution has forward and weight gradient; the dense layer also the gradient of its input.
    assert work_of_task(task, images).flops_per_sample == 2 * (2 * convolution + 3 * dense)
