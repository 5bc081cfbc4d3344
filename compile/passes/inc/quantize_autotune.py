"""Let Intel neural-compressor's ``autotune`` choose among its static int8 settings, on calibration data."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hedgerow.compile.errors import PassError
from hedgerow.compile.pass_models import CompiledModel, FloatModel
from hedgerow.compile.passes.kinds import ExportPass
from hedgerow.compile.passes.settings import between

if TYPE_CHECKING:
    from hedgerow.compile.passes.inc.served import Calibrate

__all__ = ["QuantizeIncAutotune"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeIncAutotune(ExportPass):
    """Tries asymmetric and symmetric activations with extremes and with entropy calibration, and exports the best.

    The float weights stay behind quantize nodes, as in ``quantize-inc-static``: ``fold-onnx`` must follow.

    Attributes:
        minimum_snr_db: The search ends at the first setting whose output has this signal to noise; without one the best
            is taken.
    """

    name: ClassVar[str] = "quantize-inc-autotune"
    gives: ClassVar[str] = "onnx"
    minimum_snr_db: float = between(0.0, 200.0, default=35.0)

    @property
    def weight_bits(self) -> int:
        """Integers of one byte, once they are folded."""
        return 8

    def apply(self, source: FloatModel) -> CompiledModel:
        """Return the model as ONNX with quantize nodes.

        Raises:
            PassError: The tuner found no setting.
        """
        import torch
        from neural_compressor.torch.quantization import StaticQuantConfig, TuningConfig, autotune

        from hedgerow.compile.passes.examples import one_row
        from hedgerow.compile.passes.inc.served import served_stage
        from hedgerow.compile.passes.model.training import input_tensors
        from hedgerow.compile.scoring import least_snr_db
        from hedgerow.task_module import ServingModule, predict

        schema, data = source.task.schema, source.calibration

        def joined(given: list[Any]) -> dict[str, Any]:
            # State comes after the answers.
            parts = [each if isinstance(each, tuple) else (each,) for each in given]
            names = enumerate(source.task.answers)
            return {name: np.concatenate([part[place].numpy() for part in parts]) for place, name in names}

        if schema.state:
            # Each row has a state of its own, and stands alone.
            rows = [one_row(schema, data.inputs, row) for row in range(len(data))]
            served = ServingModule(source.task, source.model).eval()
            with torch.no_grad():
                wanted = joined([served(*row) for row in rows])
        else:
            rows = [input_tensors(source, data)]
            wanted = predict(source.task, source.model, data.inputs)

        def score(program: Any) -> float:
            with torch.no_grad():
                given = [program(*row) for row in rows]
            # The tuner compares with the float model's score, which is at the upper limit, relative to it.
            return least_snr_db(wanted, joined(given))

        def quantize(program: Any, calibrate: "Calibrate") -> Any:
            # Tolerable loss is relative to the float model's score.
            baseline = score(program)
            tuning = TuningConfig(
                config_set=[
                    StaticQuantConfig(),
                    StaticQuantConfig(act_algo="kl"),
                    StaticQuantConfig(act_sym=True),
                    StaticQuantConfig(act_sym=True, act_algo="kl"),
                ],
                tolerable_loss=max(0.0, 1 - self.minimum_snr_db / baseline),
            )
            best = autotune(program, tuning, eval_fn=score, run_fn=calibrate)
            if best is None:
                raise PassError(self.name, "the tuner found no setting")
            return best

        return served_stage(source, quantize)
