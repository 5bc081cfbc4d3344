"""Training again on the devices when the world has moved."""
