"""Passes from and to TFLite files."""
