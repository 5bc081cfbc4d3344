"""Compile passes: one frozen value each, by what they work on; :mod:`hedgerow.compile.passes.runner` runs them.

What makes a value is imported with it and is light. What does the work, and the libraries for it, is imported when the
pass is applied.
"""
