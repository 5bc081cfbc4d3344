"""The wire protocol (docs/wire.md): topics and messages. Pure: bytes in, dataclasses out, and back.

Every message from a device carries (boot, sequence) or (rollout, attempt), so that repeats are harmless and gaps
show. Nothing relies on the broker keeping a message: state is versioned and sent again.
"""
