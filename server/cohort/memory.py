"""How many clients are trained at once: slices chosen from free memory, and halved when it runs out."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from hedgerow.server.cohort.engine import Weights
from hedgerow.server.cohort.errors import CohortMemoryError

__all__ = ["fitting_clients", "free_bytes", "is_out_of_memory", "run_in_slices", "weights_bytes"]

_LOG = logging.getLogger(__name__)
_USED_SHARE = 0.6
"""So much of the free memory may be used; allocators fragment, and other programs run."""

Result = TypeVar("Result")


def weights_bytes(weights: Weights) -> int:
    """Return the size of one model's parameters and buffers."""
    return sum(tensor.numel() * tensor.element_size() for tensor in weights.values())


def fitting_clients(free: int, client: int) -> int:
    """Return how many clients of *client* bytes each fit into *free* bytes with room to spare; at least one."""
    return max(1, int(free * _USED_SHARE) // max(1, client))


def free_bytes(device: str) -> int:
    """Return the memory that can still be had on *device*."""
    import torch

    if torch.device(device).type == "cuda":
        # What torch's allocator holds without using it counts as free.
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + held
    import psutil

    return int(psutil.virtual_memory().available)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether *error* means that memory ran out: torch's own, its CPU allocator's, or Python's."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


def run_in_slices(
    rows: Sequence[int], limit: int, run: Callable[[Sequence[int]], Result], *, device: str = "cpu"
) -> Iterator[Result]:
    """Run all *rows*, at most *limit* at once; where memory runs out, half as many from there on.

    Args:
        rows: The rows of the cohort, in the order in which they are run.
        limit: The first slice has so many rows at most.
        run: Trains a slice; called again with fewer rows when it ran out of memory.
        device: What messages call it.

    Raises:
        CohortMemoryError: Memory does not hold one.
    """
    limit, start = max(1, limit), 0
    while start < len(rows):
        chosen = rows[start : start + limit]
        try:
            result = run(chosen)
        except (RuntimeError, MemoryError) as exc:
            if not is_out_of_memory(exc):
                raise
            if len(chosen) == 1:
                raise CohortMemoryError(device, " ".join(str(exc).split())[:200]) from exc
            limit = len(chosen) // 2
            _LOG.warning("memory of %s did not hold %d clients; going on with %d", device, len(chosen), limit)
            continue
        start += len(chosen)
        yield result
