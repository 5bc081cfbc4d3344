"""Tasks to start from."""
