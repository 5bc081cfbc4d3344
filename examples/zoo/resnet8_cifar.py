"""ResNet-8 on 5,000 real photographs: a subset of CIFAR-10 (Krizhevsky 2009) in the folder HEDGEROW_DATA.

The folder ``cifar10-subset`` in it holds the standard binary records (one byte of label, 3,072 of pixels, gzip).
"""

import gzip
import os
from pathlib import Path

import numpy as np

from hedgerow import Dataset, LocalTraining, Task, TaskData, TensorSpec
from hedgerow.errors import TaskError
from hedgerow.examples.zoo.resnet8 import model

LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# What a cached result depends on; the second is the default place beside a checkout.
DATA_FILES = ("$HEDGEROW_DATA/cifar10-subset", "../../../shared/data/cifar10-subset")
FILES = {"train": "data_batch_first4000.bin.gz", "held_out": "test_batch_first1000.bin.gz"}
_RECORD_BYTES = 1 + 3 * 32 * 32
_LIMIT_BYTES = 64 * 2**20


def images_folder() -> Path:
    """Return the folder with the photographs.

    Raises:
        TaskError: There is none.
    """
    root = Path(__file__).resolve().parents[2]
    data_root = Path(os.environ.get("HEDGEROW_DATA") or root.parent / "shared" / "data")
    folder = data_root / "cifar10-subset"
    if not all((folder / name).is_file() for name in FILES.values()):
        mistake = f"expected {' and '.join(FILES.values())} in {folder}, found no such files; set HEDGEROW_DATA to the "
        raise TaskError("'zoo-resnet8-cifar'", [mistake + "folder that holds cifar10-subset"])
    return folder


def read_records(path: Path) -> Dataset:
    """Read a gzip file of CIFAR-10 records.

    Raises:
        TaskError: It is no such file.
    """
    try:
        with gzip.open(path) as file:
            content = file.read(_LIMIT_BYTES)
    except (OSError, EOFError) as exc:
        raise TaskError("'zoo-resnet8-cifar'", [f"expected a gzip file at {path}, found {exc}"]) from exc
    if not content or len(content) % _RECORD_BYTES:
        mistake = f"expected records of {_RECORD_BYTES} bytes in {path}, found {len(content)} bytes"
        raise TaskError("'zoo-resnet8-cifar'", [mistake])
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, _RECORD_BYTES)
    images = records[:, 1:].reshape(-1, 3, 32, 32).astype(np.float32)
    return Dataset({"image": images}, records[:, 0].astype(np.int64))


def data() -> TaskData:
    """Return 4,000 photographs to train on and 1,000 held out.

    Raises:
        TaskError: The files are absent or damaged.
    """
    folder = images_folder()
    parts = {part: read_records(folder / name) for part, name in FILES.items()}
    return TaskData(train=parts["train"], held_out=parts["held_out"])


task = Task(
    name="zoo-resnet8-cifar",
    inputs=[TensorSpec("image", (3, 32, 32), unit="intensity", minimum=0, maximum=255)],
    labels=LABELS,
    model=model,
    data=data,
    preprocess=lambda image: (image - 128) / 64,
    local=LocalTraining(learning_rate=0.05),
)
