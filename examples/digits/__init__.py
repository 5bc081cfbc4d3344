"""Handwritten digits: a small real task, its data and a simulated sensor."""
