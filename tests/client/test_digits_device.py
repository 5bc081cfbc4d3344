"""The simulated sensor of the digits example."""

import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from hedgerow.client import SourceContext
from hedgerow.errors import ExtraNotInstalledError
from hedgerow.task import load_attribute

DEVICE = str(Path(__file__).resolve().parents[2] / "examples" / "digits" / "device.py")


@pytest.fixture(scope="module")
def everything():
    load_attribute(f"{DEVICE}:stream")
    from digits_data import digits

    return digits()


def test_without_the_images_it_says_which_extra_brings_them(monkeypatch):
    load_attribute(f"{DEVICE}:stream")
    import digits_data

    monkeypatch.setattr(digits_data, "find_spec", lambda _name: None)

    with pytest.raises(ExtraNotInstalledError, match="the extra 'examples', and the module 'sklearn' is not installed"):
        digits_data.digits()


def samples(folder: Path, **options: str):
    return load_attribute(f"{DEVICE}:stream")(SourceContext("dev-1", folder, {"rate_per_s": "0", **options}))


def burst(stream) -> list:
    found = []
    for sample in stream:
        if sample.use == "serve":
            return found
        found.append(sample)
    return found


def set_world(folder: Path, **world: object) -> None:
    path = folder / "world.json"
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(json.dumps(world))
    os.utime(path, ns=(before + 10**9, before + 10**9))


def test_any_247_served_images_in_a_row_are_each_test_image_once(tmp_path, everything):
    stream = samples(tmp_path)
    burst(stream)
    served = list(islice(stream, 300))
    wanted = sorted(image.tobytes() for image in everything.inputs["image"][1550:1797])
    assert sorted(sample.inputs["image"].tobytes() for sample in served[40:287]) == wanted
    assert all(sample.use == "serve" and sample.label is not None for sample in served)


def test_the_shards_of_all_devices_are_the_training_images(tmp_path, everything):
    seen = []
    for index in range(4):
        learned = burst(samples(tmp_path, clients="4", index=str(index), seed="3"))
        assert len(learned) >= 300 + 32
        field = [sample.inputs["image"].tobytes() for sample in learned[-300:]]
        assert field == [image.tobytes() for image in everything.inputs["image"][1250:1550]]
        seen += [sample.inputs["image"].tobytes() for sample in learned[:-300]]
    assert sorted(seen) == sorted(image.tobytes() for image in everything.inputs["image"][:1000])


def test_the_split_is_the_one_that_simulated_clients_get(everything):
    from digits_data import PARTITION

    own_shard = load_attribute(f"{DEVICE}:own_shard")
    wanted = PARTITION.split(everything.target_values[:1000], 8, np.random.default_rng(5))
    for index in range(8):
        got = own_shard({"clients": "8", "index": str(index), "seed": "5"})
        assert got.tolist() == wanted[index].tolist()


def test_a_changed_world_is_labelled_again_and_served_on_in_order(tmp_path, everything):
    stream = samples(tmp_path)
    clean = burst(stream)
    served = list(islice(stream, 10))
    set_world(tmp_path, inverted=True, shift=1)
    drifted = burst(stream)
    assert len(drifted) == len(clean)
    for before, after in zip(clean, drifted, strict=True):
        moved = np.zeros_like(before.inputs["image"])
        moved[..., 1:] = before.inputs["image"][..., :-1]
        assert (after.inputs["image"] == 16 - moved).all()
        assert after.label == before.label
    set_world(tmp_path)
    assert len(burst(stream)) == len(clean)
    # One image was taken by each end of a burst: the order goes on where it was.
    fresh = samples(tmp_path)
    burst(fresh)
    order = [sample.inputs["image"].tobytes() for sample in islice(fresh, 40)]
    assert [sample.inputs["image"].tobytes() for sample in served] == order[:10]
    assert next(stream).inputs["image"].tobytes() in order


def test_a_half_written_world_changes_nothing(tmp_path):
    stream = samples(tmp_path)
    burst(stream)
    (tmp_path / "world.json").write_text('{"inver')
    assert next(stream).use == "serve"
    (tmp_path / "world.json").write_text("{}")
    assert next(stream).use == "serve"


def test_the_sensor_loads_neither_torch_nor_scikit_learn(tmp_path):
    script = f"""
import sys
from hedgerow.task import load_attribute
from hedgerow.client import SourceContext
from hedgerow.errors import ExtraNotInstalledError
from pathlib import Path
next(load_attribute({DEVICE + ":stream"!r})(SourceContext("d", Path({str(tmp_path)!r}), {{}})))
sys.exit(str([name for name in ("torch", "sklearn", "scipy") if name in sys.modules] or 0))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "0", done.stderr
