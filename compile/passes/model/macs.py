"""Multiply-accumulate operations of a torch model's one pass over one sample."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hedgerow.compile.pass_models import FloatModel
from hedgerow.compile.passes.examples import example_inputs
from hedgerow.task_module import LogitsModule

__all__ = ["count_macs"]


def count_macs(source: FloatModel, model: nn.Module) -> int:
    """Return the multiplications of convolutions and matrix products for one sample."""
    module = LogitsModule(source.task, model).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*example_inputs(source.task.schema, 1))
    return int(counter.get_total_flops()) // 2
