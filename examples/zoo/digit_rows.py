"""scikit-learn's handwritten digits in the shapes that the zoo's models take them."""

from dataclasses import replace

import numpy as np

from hedgerow import Dataset, TaskData
from hedgerow.examples.digits.digits_data import digits

_TRAIN = 1297


def digit_rows(shape: tuple[int, ...]) -> TaskData:
    """Return the 1,797 images with the pixels of each in *shape*; the last 500 are held out."""
    everything = digits()
    pixels = everything.inputs["image"].reshape(-1, *shape)
    reshaped: Dataset = replace(everything, inputs={"pixels": pixels})
    return TaskData(train=reshaped.take(np.arange(_TRAIN)), held_out=reshaped.take(np.arange(_TRAIN, len(everything))))
