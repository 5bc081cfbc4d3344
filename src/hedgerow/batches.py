"""Which samples make up each step of local training: the one rule for simulated clients and for devices.

Pure: the random generator is passed in. A client that trains E epochs calls :func:`batch_indices` E times with the
same generator, made as ``numpy.random.default_rng(client_seed(seed, round_number, client))``.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

__all__ = ["batch_indices", "client_seed"]


def batch_indices(samples: int, batch_size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the samples of each step of one epoch.

    An epoch is a permutation of all samples. A train graph's batch is static, so an incomplete last batch is filled
    from the start of that permutation; a client with fewer samples than a batch repeats its samples in it.

    Args:
        samples: How many samples the client has.
        batch_size: Samples of one step.
        rng: Draws the permutation, and nothing else.

    Returns:
        ``int64[steps, batch_size]`` with ``steps = ceil(samples / batch_size)``.

    Raises:
        ValueError: A number is below 1.
    """
    if samples < 1 or batch_size < 1:
        raise ValueError(f"samples and batch_size must be at least 1, not {samples} and {batch_size}")
    steps = -(-samples // batch_size)
    order = rng.permutation(samples).astype(np.int64, copy=False)
    # numpy's resize always copies.
    return np.resize(order, (steps, batch_size)) if samples % batch_size else order.reshape(steps, batch_size)


def client_seed(seed: int, round_number: int, client: str) -> int:
    """Return the seed of one client's generator in one round, the same in every process and on every machine.

    Args:
        seed: The run's seed.
        round_number: The number of the round, from 1.
        client: Name of the device, or number of the partition.

    Returns:
        A whole number below 2**63.
    """
    digest = hashlib.sha256(f"{seed}/{round_number}/{client}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
