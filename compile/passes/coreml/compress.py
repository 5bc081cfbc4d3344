"""Apply one of coremltools' weight compressions to a package."""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct

from hedgerow.compile.errors import PassError
from hedgerow.compile.mlpackage import unpack
from hedgerow.compile.passes.coreml.export import packed
from hedgerow.compile.stage import Stage

__all__ = ["compress"]


def compress(step: str, stage: Stage | None, method: Callable[[Any, Any], Any], rules: Any) -> Stage:
    """Return *stage* with its weights compressed by *method* under *rules*.

    Raises:
        PassError: coremltools fails.
        ValueError: No Core ML stage is given.
    """
    if stage is None or stage.format != "mlpackage":
        raise ValueError("expected a Core ML package to compress")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.mlpackage"
        unpack(stage.content, path)
        try:
            compressed = method(ct.models.MLModel(str(path), skip_model_load=True), rules)
        # coremltools raises whatever its passes raise; the message must name the step.
        except Exception as exc:
            said = (str(exc).strip().splitlines() or [""])[0][:300]
            raise PassError(step, f"{type(exc).__name__}: {said}") from exc
        content = packed(compressed)
    return Stage(format="mlpackage", content=content, inputs=stage.inputs, outputs=stage.outputs)
