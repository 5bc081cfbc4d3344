"""What the process of a :class:`~hedgerow.children.module_child.ModuleChild` runs first, and then the module itself."""

import socket
import sys
from collections.abc import Sequence
from importlib import import_module

from hedgerow.children.channel import MessageChannel
from hedgerow.children.parent_death import die_with_parent

__all__ = ["main"]


def main(argv: Sequence[str]) -> None:
    """Tie this process to its parent, and call ``serve(channel)`` of a module.

    What the module raises ends the process with a traceback and the exit code 1.

    Args:
        argv: The module, the descriptor of the channel, the parent's process id, the bound of a message in bytes.
    """
    module, (descriptor, parent, limit_bytes) = argv[0], map(int, argv[1:4])
    # The thread that forked us does nothing but wait for us, so the kernel may be asked.
    die_with_parent(parent)
    with MessageChannel(socket.socket(fileno=descriptor), limit_bytes) as channel:
        import_module(module).serve(channel)


if __name__ == "__main__":
    main(sys.argv[1:])
