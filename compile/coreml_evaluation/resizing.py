"""Up-sampling and cropping, in float32."""

from collections.abc import Mapping

import torch
from torch.nn import functional

from hedgerow.compile.coreml_evaluation.operation import NotEvaluatedError, Operation, Operator, Values

__all__ = ["RESIZING"]


def _scales(call: Operation) -> list[float]:
    return [float(call.constant(f"scale_factor_{axis}", 1)) for axis in ("height", "width")]


def _nearest(call: Operation, values: Values) -> torch.Tensor:
    scales = _scales(call)
    # Which value a place between two takes is written nowhere.
    if any(not scale.is_integer() for scale in scales):
        raise NotEvaluatedError(call.kind, "by a factor that is no whole number")
    x = call.tensor(values, "x")
    return x.repeat_interleave(int(scales[0]), -2).repeat_interleave(int(scales[1]), -1)


def _bilinear(call: Operation, values: Values) -> torch.Tensor:
    x, corners = call.tensor(values, "x"), bool(call.constant("align_corners", True))
    if not corners and not call.constant("half_pixel_centers", True):
        raise NotEvaluatedError(call.kind, "with neither aligned corners nor centred pixels")
    if not corners and any(not scale.is_integer() for scale in _scales(call)):
        raise NotEvaluatedError(call.kind, "by a factor that is no whole number")
    sizes = list(call.shape[-2:])
    flat = x.reshape(1, -1, *x.shape[-2:])
    return functional.interpolate(flat, sizes, mode="bilinear", align_corners=corners).reshape(call.shape)


def _crop(call: Operation, values: Values) -> torch.Tensor:
    x = call.tensor(values, "x")
    for axis, name in ((-2, "crop_height"), (-1, "crop_width")):
        before, after = call.constant(name)
        x = x.narrow(axis, before, x.shape[axis] - before - after)
    return x


RESIZING: Mapping[str, Operator] = {
    "crop": _crop,
    "upsample_bilinear": _bilinear,
    "upsample_nearest_neighbor": _nearest,
}
