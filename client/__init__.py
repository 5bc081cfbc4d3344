"""The device agent: installs signed releases, serves them, counts what it sees, trains on what it was shown.

No torch, no flwr: the base install of Hedgerow is all it needs. Programs start it with ``hedgerow agent run``; a source
of samples is a function that yields :class:`Sample`, and gets an :class:`Answer` for each.
"""

from hedgerow.client.answer import Answer
from hedgerow.client.source import Sample, Source, SourceContext

__all__ = ["Answer", "Sample", "Source", "SourceContext"]
