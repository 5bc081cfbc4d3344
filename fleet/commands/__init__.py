"""What an admin types: ``hedgerow fleet``, ``release``, ``rollout`` and ``device``."""
