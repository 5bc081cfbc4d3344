"""The federated server: Flower strategies over our grids, resumable runs, checks of a user's task.

Importing this package imports neither torch nor Flower.
"""
