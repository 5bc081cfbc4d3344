"""The training step as one file: forward, backward and SGD, without torch on the device."""
