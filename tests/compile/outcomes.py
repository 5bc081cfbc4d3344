"""A compile's outcome with one artifact and one refused target, for tests of what is told of it."""

from hedgerow.compile.build import Build
from hedgerow.compile.outcome import Outcome, RefusedTarget
from hedgerow.compile.profile.host import HostLatency
from hedgerow.compile.search import TriedRecipe
from hedgerow.manifest.artifact import Artifact
from hedgerow.manifest.content import Blob
from hedgerow.model_schema import ModelSchema
from hedgerow.outputs import Classes, Outputs
from hedgerow.schema import TensorSpec

BLOB = Blob("a" * 64, 10)
METRICS = {
    "bytes": 100.0,
    "float_bytes": 400.0,
    "accuracy": 0.9,
    "float_accuracy": 0.91,
    "snr_db": 40.0,
    "agreement": 0.99,
    "parameters": 90.0,
    "macs": 5000.0,
    "moved_bytes": 300.0,
    "peak_memory_bytes": 96.0,
    "target_latency_ms": 2.0,
    "target_energy_mj": 8.0,
    "target_error_factor": 3.0,
}
EVALUATION = {
    "samples": 4,
    "train_samples": 10,
    "classes": [
        {"name": "<b>no</b>", "support": 2, "precision": 1.0, "recall": 0.5},
        {"name": "yes|", "support": 2, "precision": None, "recall": None},
    ],
    "confusion": [[1, 1], [0, 2]],
    "subgroups": [{"name": "left", "samples": 2, "accuracy": 0.5}],
    "fairness": {
        "classes": [{"name": "yes|", "demographic_parity_difference": 0.5, "equalized_odds_difference": None}],
        "largest_demographic_parity_difference": 0.5,
        "largest_equalized_odds_difference": None,
    },
}


def outcome(**changes) -> Outcome:
    artifact = Artifact(
        target="raspberry-pi-4",
        format="onnx",
        runtime="onnxruntime",
        blob=BLOB,
        inputs=(),
        outputs=(),
        recipe=("export-onnx", "quantize"),
        golden=None,
        golden_tolerance=0.01,
        metrics=METRICS,
        checks={"accuracy": "passed", "runs on device": "not run"},
    )
    build = Build(
        task="hands",
        model_schema=ModelSchema((TensorSpec("x", (1, 8), "float32"),), (), Outputs.of(Classes(("<b>no</b>", "yes|")))),
        artifacts=(artifact,),
        train_graphs=(),
        reference=BLOB,
        checkpoint_sha256="c" * 64,
        run="run-0",
        data_fingerprint="d" * 64,
        metrics={"accuracy": 0.91},
        parent=None,
    )
    facts = {
        "build": build,
        "refused": (
            RefusedTarget(
                target="cortex-m4",
                recipe="tflite-int8-full",
                check="memory",
                reason="too | large",
                further="refused, too: tflite-pruned-int8-full (memory)",
            ),
        ),
        "trials": (
            TriedRecipe(target="raspberry-pi-4", recipe="onnx-int8-s8s8", state="passed", metrics=METRICS),
            TriedRecipe(
                target="cortex-m4", recipe="tflite-int8-full", state="refused", check="memory", reason="too | large"
            ),
        ),
        "recipes": {"raspberry-pi-4": "onnx-int8-s8s8"},
        "cached": (),
        "latencies": {"raspberry-pi-4": HostLatency(0.5, 0.9, 100)},
        "not_run": {"raspberry-pi-4": {"runs on device": "there is no such runtime"}},
        "evaluations": {
            "raspberry-pi-4": {
                "classes": [
                    {"name": "<b>no</b>", "support": 2, "precision": 1.0, "recall": 0.25},
                    {"name": "yes|", "support": 2, "precision": None, "recall": None},
                ],
                "subgroups": [{"name": "left", "samples": 2, "accuracy": 0.75}],
            }
        },
        "seconds": 1.25,
    }
    return Outcome(**(facts | changes))
