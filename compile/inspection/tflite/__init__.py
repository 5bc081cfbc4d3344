"""Read a TFLite file back."""
