"""What happens to a sample before the model sees it, kept apart from what is quantized."""
