"""How far a student is from its teacher, for each kind of numbers that they give."""

import torch
from torch import nn

from hedgerow.outputs import Output

__all__ = ["taught_loss"]


def taught_loss(output: Output, given: torch.Tensor, taught: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the teacher's part of the loss of one output.

    Args:
        output: What the numbers are for.
        given: The student's, before the activation.
        taught: The teacher's.
        temperature: By which the logits of probabilities are divided.
    """
    if output.activation == "sigmoid":
        # A probability of its own is one of two classes.
        given, taught = (torch.stack([part * 0, part], -1) for part in (given, taught))
    if output.activation in {"softmax", "sigmoid"}:
        said, softened = (
            nn.functional.log_softmax(part / temperature, dim=-1).flatten(0, -2) for part in (given, taught)
        )
        found = nn.functional.kl_div(said, softened, reduction="batchmean", log_target=True)
        return found * temperature**2
    unit = torch.tensor(getattr(output, "tolerance", 1.0), dtype=given.dtype)
    return nn.functional.mse_loss(given / unit, taught / unit)
