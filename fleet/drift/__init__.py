"""Whether the world of a device has moved, and when a person should know. Pure."""
