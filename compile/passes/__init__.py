"""Compile passes: one function a file, each (source, stage, settings) -> stage."""
