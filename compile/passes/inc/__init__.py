"""Passes that call Intel neural-compressor."""
