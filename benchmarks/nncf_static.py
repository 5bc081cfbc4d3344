"""Quantize float.onnx in a folder with NNCF's defaults. It needs nncf and onnx, and nothing of Hedgerow."""

import sys
from pathlib import Path

import nncf
import numpy as np
import onnx

folder = Path(sys.argv[1])
samples = dict(np.load(folder / "samples.npz"))
count = len(next(iter(samples.values())))
rows = [{name: values[index : index + 1] for name, values in samples.items()} for index in range(count)]
model = onnx.load(folder / "float.onnx")
onnx.save(nncf.quantize(model, nncf.Dataset(rows)), folder / "int8.onnx")
