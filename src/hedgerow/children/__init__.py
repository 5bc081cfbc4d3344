"""Child processes: their start, their messages, their limits and their end, in one place for all of Hedgerow.

Whoever needs a process takes :class:`~hedgerow.children.module_child.ModuleChild` (a module of ours that is spoken to),
:class:`~hedgerow.children.programs.Programs` (foreign programs with logs), :class:`~hedgerow.children.child.Child` (one
such program), or :func:`~hedgerow.children.forked.fork_child` (a copy of this process). All of them end with their
parent, however it ends, and an end is a value: :class:`~hedgerow.children.ended.Ended`.

The device agent imports this: standard library and root only.
"""
