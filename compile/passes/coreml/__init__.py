"""Passes from and to Core ML packages."""
