"""The same work in every simulator, each in a process of its own: ``python -m benchmarks.peers.<script> --work W``."""
