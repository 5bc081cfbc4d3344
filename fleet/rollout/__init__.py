"""Rules of a rollout: what may happen when, and what follows."""
