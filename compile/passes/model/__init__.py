"""Passes from a torch model to a torch model."""
