"""A whole cohort of virtual clients trained at once: who owns which samples, the work of a round, and engines."""
