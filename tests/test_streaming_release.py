"""A model with state on its whole way: compiled, signed, rolled out, and two streams through an agent's own process.

Fleet service, broker and agent are real. What the agent answers is compared with its runtime driven by hand.
"""

import json
import time

import numpy as np
import pytest

from hedgerow.fleet.rollout.state import RolloutState
from hedgerow.fleet.trust.releases import create_release
from hedgerow.manifest.release import Manifest
from hedgerow.wire.execution import ExecutionState
from tests.examples.zoo.streaming_model import fresh, trained
from tests.examples.zoo.test_streaming import by_hand
from tests.test_bad_release import open_field

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.broker,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]

SOURCE = """
import json
import time
import numpy as np
from hedgerow.client import Sample

FRAMES, LABELS = np.load("frames.npy"), np.load("labels.npy")

def stream(context):
    # Two microphones in turns; each says two recordings after the other, over and over.
    while True:
        for half in (0, 2):
            for step in range(FRAMES.shape[1]):
                for microphone in (0, 1):
                    number = half + microphone
                    answer = yield Sample(
                        {"frame": FRAMES[number, step]},
                        int(LABELS[number, step]),
                        stream=f"microphone {microphone}",
                        begins=step == 0,
                    )
                    if answer is None:
                        time.sleep(0.05)
                        break
                    with open("answers", "a") as file:
                        outputs = {name: values.tolist() for name, values in answer.outputs.items()}
                        file.write(json.dumps([number, step, answer.release, outputs]) + chr(10))
                else:
                    continue
                break
            else:
                continue
            break
        time.sleep(0.01)
"""
PASSES = 3


@pytest.mark.parametrize("target", ["raspberry-pi-4", "android-arm64"])
def test_a_source_streams_through_a_signed_release_and_each_stream_keeps_its_state(tmp_path, target):
    recordings = fresh(4)
    frames, labels = recordings.inputs["frame"], recordings.target_values
    np.save(tmp_path / "frames.npy", frames)
    np.save(tmp_path / "labels.npy", labels)
    steps = frames.shape[1]
    with open_field(tmp_path) as field:
        (tmp_path / "source.py").write_text(SOURCE)
        field.target = target
        manifest = create_release(field.fleet, "detector", trained().folder / "build", now=time.time())
        signed = field.fleet.release(manifest.release) / "manifest.json"
        field.start_agent()
        rollout = field.roll_out(manifest.release)
        answers = tmp_path / "answers"
        field.until(lambda: answers.exists() and answers.read_text().count("\n") >= PASSES * 4 * steps, timeout_s=120)
        field.until(lambda: len(field.service.windows("d1")) > 3)
        windows = [stored.window for stored in field.service.windows("d1")]

    assert (rollout.state, rollout.executions["d1"].state) == (RolloutState.FINISHED, ExecutionState.SUCCEEDED)
    assert Manifest.decode(signed.read_bytes()).model_schema.state == {"state": "state_next"}
    wanted = [by_hand(target, each) for each in frames]
    rows = [json.loads(line) for line in answers.read_text().split("\n")[:-1]]
    for number, step, release, outputs in rows:
        assert release == manifest.release
        assert list(outputs) == ["probabilities"], "state is nobody's answer"
        np.testing.assert_allclose(outputs["probabilities"], wanted[number][step], atol=1e-6)
    # State is neither counted nor watched; labels count as ever.
    names = {name for window in windows for name in window.features}
    assert names == {"output.confidence", "output.label", *(f"frame.{index}" for index in range(16))}
    assert all(window.samples == window.scores.samples == 10 for window in windows[:3])
