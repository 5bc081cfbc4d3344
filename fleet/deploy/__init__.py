"""A checkpoint's whole way to running agents by one command: compile, sign, roll out, and say what runs where."""
