"""Runs of virtual fleets: clock, device model, asynchronous rounds, sweeps, plots and ``hedgerow simulate``."""
