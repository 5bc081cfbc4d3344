"""What to do about each check that failed."""

from collections.abc import Mapping, Sequence

__all__ = ["OTHER_LAYERS", "advice_for"]

_MORE_BITS = "choose a recipe that keeps more bits"
_LEAVE_OUT = " or leave this target out"
OTHER_LAYERS = f"replace these layers in the model{_LEAVE_OUT}"
"""What to do about operators that a target does not have."""
_ADVICE: Mapping[str, str] = {
    "accuracy": f"{_MORE_BITS}, train further, or allow a larger --max-drop",
    "all integer": "use layers that have an int8 form, choose an all-integer recipe, or leave this target out",
    "edgetpu compiler": "install edgetpu_compiler where it is absent, replace the layers that it leaves to the CPU, or "
    "leave this target out",
    "format": "give a file in the target's format or leave this target out",
    "golden": "remove from the model whatever is random, remembers earlier calls or gives NaN",
    "inline constants": "write the file with its constants inside, as `hedgerow compile` does",
    "integer border": "choose a recipe with integer inputs and outputs, such as tflite-int8-full",
    "latency": "make the model smaller or choose a faster target",
    "memory": "make the model's activations smaller or choose a target with more memory",
    "number types": "give the task's inputs and the recipe a number type that the target has, or leave this target out",
    "operator versions": OTHER_LAYERS,
    "operators": OTHER_LAYERS,
    "oracle": OTHER_LAYERS,
    "parity": f"{_MORE_BITS}, calibrate with data that is more like the held-out data, or accept the difference with "
    "--min-snr and --min-agreement",
    "prepare": "write preprocess with plainer operators, or prepare the samples yourself and let the task's inputs be "
    "what was prepared",
    "quantized": "choose a recipe that quantizes the layers of this model",
    "ranks": f"merge dimensions that the layers treat alike,{_LEAVE_OUT}",
    "score": f"{_MORE_BITS}, train further, or allow a larger --max-drop",
    "size": "choose a float recipe where the target runs floats, or a larger model: it gains from fewer bits",
    "static shapes": "fix every size in the model but the batch's",
    "storage": "make the model smaller or choose a recipe with fewer bits",
    "symmetric": "choose a recipe without zero points, such as onnx-int8-symmetric",
    "train graph": "use the layers of docs/train-graph.md or a target that does not train",
    "weights": "train again with a smaller learning rate",
}
"""What to do about a check that failed."""


def advice_for(checks: Sequence[str]) -> str:
    """Return what to do about *checks*, each choice once."""
    pieces = list(dict.fromkeys(_ADVICE.get(check, f"choose another recipe{_LEAVE_OUT}") for check in checks))
    for place, piece in enumerate(pieces):
        if any(earlier.startswith(_MORE_BITS) for earlier in pieces[:place]):
            pieces[place] = piece.removeprefix(f"{_MORE_BITS}, ")
        if any(later.endswith(_LEAVE_OUT) for later in pieces[place + 1 :]):
            pieces[place] = piece.removesuffix(_LEAVE_OUT).removesuffix(",")
    return "; ".join(pieces)
