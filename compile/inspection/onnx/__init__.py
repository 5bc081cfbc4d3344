"""Read an ONNX file back."""
