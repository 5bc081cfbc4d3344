"""Passes from and to ONNX files."""
