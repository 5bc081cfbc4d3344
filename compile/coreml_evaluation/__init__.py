"""Evaluate a saved Core ML program numerically on any host, so that its accuracy and parity can be checked here.

Core ML itself predicts on Apple's systems only. This is a reference, not a runtime: every operator is computed in
float32 by its documented formula, and its result is rounded to the type that the program gives it (float16 as a rule).
Apple's hardware may add up in another order and precision; so a device is still to be measured on a device.
"""

from hedgerow.compile.coreml_evaluation.evaluate import UnknownOperator, predict_coreml

__all__ = ["UnknownOperator", "predict_coreml"]
