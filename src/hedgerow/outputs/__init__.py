"""What a model gives: classes, labels, values, a reconstruction, tokens, or something of the user's own."""

from hedgerow.outputs.classes import Classes
from hedgerow.outputs.custom import Custom
from hedgerow.outputs.labels import Labels
from hedgerow.outputs.output import Classified, Output
from hedgerow.outputs.outputs import NO_OUTPUTS, Outputs
from hedgerow.outputs.reconstruction import ANOMALOUS, NORMAL, Reconstruction
from hedgerow.outputs.records import output_from_fields, output_to_record
from hedgerow.outputs.tokens import Tokens
from hedgerow.outputs.values import Values

__all__ = [
    "ANOMALOUS",
    "NORMAL",
    "NO_OUTPUTS",
    "Classes",
    "Classified",
    "Custom",
    "Labels",
    "Output",
    "Outputs",
    "Reconstruction",
    "Tokens",
    "Values",
    "output_from_fields",
    "output_to_record",
]
