"""Weights from elsewhere: a user's own file, read in a process of its own, fitted to a task's model and measured."""
