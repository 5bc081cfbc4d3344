"""Counts with their nouns, as sentences have them."""

__all__ = ["counted"]


def counted(number: int, noun: str) -> str:
    """Return *number* and *noun*, which has its plural with an s: ``1 round``, ``1,200 rounds``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
