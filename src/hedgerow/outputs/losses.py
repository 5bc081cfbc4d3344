"""Which losses there are by name, and which of them an output can be trained with. The functions stand beside torch."""

from collections.abc import Mapping
from typing import Any

from hedgerow.outputs.outputs import Outputs

__all__ = ["LOSSES", "loss_mistakes", "loss_of"]

LOSSES = {
    "cross_entropy": "cross-entropy of the classes; for tokens over all known positions",
    "bce": "binary cross-entropy of each number the model gives, the mean over all",
    "mse": "the squared error, the mean over all",
    "mae": "the absolute error, the mean over all",
    "huber": "the squared error within one tolerance, then the absolute one, in tolerances",
    "focal": "cross-entropy that counts what is almost right less (Lin et al. 2017, arXiv 1708.02002), gamma 2",
}
"""Every loss by its name, in words. What is told for classes is one for the class and zero for every other."""


def loss_of(outputs: Outputs, name: str, loss: Any) -> Any:
    """Return what an output is trained with: the name of a loss, a function of the user's, or None: nothing was said.

    Args:
        outputs: All of them.
        name: Of the one.
        loss: What the task says: a name, a function, a mapping of outputs to either, or None.
    """
    said = loss.get(name) if isinstance(loss, Mapping) else loss
    output = outputs[name]
    if said is not None:
        return said
    return output.losses[0] if output.losses else getattr(output, "loss", None)


def loss_mistakes(outputs: Outputs, loss: Any) -> list[str]:
    """Return one sentence for everything that is wrong with what a task says of its loss."""
    if callable(loss):
        return []
    found: list[str] = []
    if isinstance(loss, Mapping):
        found.extend(f"the loss names the output {name!r}, which there is not" for name in loss if name not in outputs)
    for name, output in outputs.items():
        said = loss_of(outputs, name, loss)
        if callable(said):
            continue
        if said is None:
            found.append(
                f"the output {name!r} ({output.kind}) needs a loss of your own: loss=a torch function "
                "(given, target values) -> one number"
            )
        elif not isinstance(said, str) or said not in LOSSES:
            found.append(f"the loss {said!r} is none of {', '.join(LOSSES)} and not a function")
        elif said not in output.losses:
            fitting = ", ".join(output.losses) or "a function of your own"
            found.append(f"the loss {said!r} does not fit {output.kind}; expected {fitting}")
    return found
