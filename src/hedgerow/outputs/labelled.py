"""Records of before there were outputs of other kinds, which named the classes of the model and no more."""

from collections.abc import Sequence

from hedgerow.decode import Fields
from hedgerow.errors import DecodeError
from hedgerow.outputs.classes import Classes
from hedgerow.outputs.names import MOST_NAMES
from hedgerow.outputs.outputs import NO_OUTPUTS, Outputs
from hedgerow.schema import TensorSpec

__all__ = ["ONLY_OUTPUT", "outputs_of_labels"]

ONLY_OUTPUT = Classes.tensor_name
"""What the output was called that had classes, and that a train graph learned from target values."""


def outputs_of_labels(fields: Fields, tensors: Sequence[TensorSpec]) -> Outputs:
    """Decode ``labels``, the names of the classes, as the outputs that they stood for.

    Args:
        fields: Of a schema; the caller finishes them.
        tensors: What the model gives. Without names, or where none is called ``probabilities``, nobody has said what it
            gives.

    Raises:
        DecodeError: There are no labels, or they name other classes than the model gives.
    """
    labels = fields.texts("labels", maximum_items=MOST_NAMES)
    tensor = next((spec for spec in tensors if spec.name == ONLY_OUTPUT), None)
    if not labels or tensor is None:
        return NO_OUTPUTS
    # Logits as they are had no bounds.
    classes = Classes(labels, softmax=tensor.minimum is not None)
    outputs = Outputs({ONLY_OUTPUT: classes})
    if misfit := outputs.misfit(tensors):
        raise DecodeError(f"{fields.where}.labels", *misfit)
    if mistakes := classes.mistakes():
        raise DecodeError(f"{fields.where}.labels", "names of classes", f"{mistakes[0]}; compile the release again")
    return outputs
