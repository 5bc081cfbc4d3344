"""Import the device agent and exit with 1 when that loads a library that no device should need.

Run in a process of its own: by tests/test_layout.py, and by .ci/run where nothing but the base install exists.
"""

import importlib
import sys

AGENT = ("hedgerow.client", "hedgerow.client.cli")
HEAVY = (
    "ai_edge_quantizer",
    "coremltools",
    "fastapi",
    "flwr",
    "iotcore",
    "jax",
    "jinja2",
    "litert_torch",
    "matplotlib",
    "neural_compressor",
    "onnx",
    "onnxscript",
    "pydantic",
    "rich",
    "scipy",
    "sklearn",
    "sqlite_utils",
    "torch",
    "transformers",
    "uvicorn",
)

for name in AGENT:
    importlib.import_module(name)
loaded = sorted(set(HEAVY) & set(sys.modules))
if loaded:
    sys.exit(f"importing {' and '.join(AGENT)} loads {', '.join(loaded)}")
