"""A child process that runs a module of ours and is spoken to over a channel."""

import os
import socket
import sys
from collections.abc import Mapping

from hedgerow.children.channel import MessageChannel
from hedgerow.children.child import Child
from hedgerow.children.output import ChildOutput

__all__ = ["ModuleChild"]


class ModuleChild(Child):
    """An interpreter of its own that calls ``serve(channel)`` of a module; see :mod:`hedgerow.children.module_entry`.

    Args:
        module: Its full name.
        limit_bytes: No message may be longer, in either direction.
        name: What it is, for people.
        output, environment, scratch: As of :class:`~hedgerow.children.child.Child`.

    Attributes:
        channel: To it.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(
        self,
        module: str,
        *,
        limit_bytes: int,
        name: str,
        output: ChildOutput | None = None,
        environment: Mapping[str, str] | None = None,
        scratch: bool = False,
    ) -> None:
        ours, theirs = socket.socketpair()
        self.channel = MessageChannel(ours, limit_bytes)
        facts = (theirs.fileno(), os.getpid(), limit_bytes)
        try:
            super().__init__(
                [sys.executable, "-P", "-m", "hedgerow.children.module_entry", module, *map(str, facts)],
                name=name,
                output=output,
                environment=environment,
                scratch=scratch,
                keep_open=(theirs.fileno(),),
                closes=(self.channel,),
                dies_by_itself=True,
            )
        finally:
            theirs.close()
