"""What a model gives: classes, labels, values, a reconstruction, tokens."""

from hedgerow.outputs.classes import Classes
from hedgerow.outputs.labels import Labels
from hedgerow.outputs.output import Output
from hedgerow.outputs.reconstruction import ANOMALOUS, NORMAL, Reconstruction
from hedgerow.outputs.tokens import Tokens
from hedgerow.outputs.values import Values

__all__ = ["ANOMALOUS", "NORMAL", "Classes", "Labels", "Output", "Reconstruction", "Tokens", "Values"]
