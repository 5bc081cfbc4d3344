"""Let Intel neural-compressor's ``autotune`` choose among its static int8 settings, on calibration data."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hedgerow.compile.errors import PassError
from hedgerow.compile.passes.inc.served import Calibrate, inc_stage
from hedgerow.compile.passes.model.training import input_tensors
from hedgerow.compile.passes.settings import between, read_settings
from hedgerow.compile.stage import Settings, Source, Stage
from hedgerow.compile.verify import signal_to_noise_db
from hedgerow.task_module import predict

__all__ = ["AutotuneSettings", "quantize_inc_autotune"]

_STEP = "quantize-inc-autotune"


@dataclass(frozen=True, slots=True, kw_only=True)
class AutotuneSettings:
    """Settings of :func:`quantize_inc_autotune`.

    Attributes:
        minimum_snr_db: The search ends at the first setting whose output has this signal to noise; without one the best
            is taken.
    """

    minimum_snr_db: float = between(0.0, 200.0, default=35.0)


def quantize_inc_autotune(source: Source, _stage: Stage | None, settings: Settings) -> Stage:
    """Try asymmetric and symmetric activations with extremes and with entropy calibration; export the best.

    The float weights stay behind quantize nodes, as in ``quantize-inc-static``: ``fold-onnx`` must follow.

    Raises:
        PassError: neural-compressor or the exporter fails.
        PassSettingsError: The settings make no sense.
    """
    chosen = read_settings(_STEP, AutotuneSettings, settings)
    wanted = predict(source.task, source.model, source.calibration.inputs)
    inputs = input_tensors(source, source.calibration)

    def score(program: Any) -> float:
        with torch.no_grad():
            found = program(*inputs).numpy()
        # The tuner compares with the float model's score, which is at the upper limit, relative to it.
        return signal_to_noise_db(wanted, np.asarray(found))

    def quantize(program: Any, calibrate: Calibrate) -> Any:
        from neural_compressor.torch.quantization import StaticQuantConfig, TuningConfig, autotune

        # Tolerable loss is relative to the float model's score.
        baseline = score(program)
        tuning = TuningConfig(
            config_set=[
                StaticQuantConfig(),
                StaticQuantConfig(act_algo="kl"),
                StaticQuantConfig(act_sym=True),
                StaticQuantConfig(act_sym=True, act_algo="kl"),
            ],
            tolerable_loss=max(0.0, 1 - chosen.minimum_snr_db / baseline),
        )
        best = autotune(program, tuning, eval_fn=score, run_fn=calibrate)
        if best is None:
            raise PassError(_STEP, "the tuner found no setting")
        return best

    return inc_stage(_STEP, source, quantize)
