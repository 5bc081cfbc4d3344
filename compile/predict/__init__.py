"""Predictions over a file of samples: read and checked, run through an artifact or the float model, told and scored."""
