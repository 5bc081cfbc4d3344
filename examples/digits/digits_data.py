"""Handwritten digits (scikit-learn's, 1,797 real images of 8 x 8 pixels) and who sees which. Needs no torch."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from hedgerow import Dataset, Partition
from hedgerow.errors import ExtraNotInstalledError

TRAIN, HELD_OUT, FIELD, TEST = range(1000), range(1000, 1250), range(1250, 1550), range(1550, 1797)
"""Train: cut into the clients' shards. Held out: every accuracy. Field: labelled by users. Test: what devices meet."""

PARTITION = Partition("dirichlet", alpha=0.5, minimum_samples=32)


def digits() -> Dataset:
    """Return all images in an order that mixes the writers, always the same."""
    # The file itself: importing scikit-learn would cost a device 100 MB and two seconds.
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise ExtraNotInstalledError("the digits example", "examples", "sklearn")
    table = np.loadtxt(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    table = table[np.random.default_rng(7).permutation(len(table))]
    images = table[:, :-1].reshape(-1, 1, 8, 8).astype(np.float32)
    return Dataset({"image": images}, table[:, -1].astype(np.int64))
