"""The main job, end to end: what ``hedgerow demo`` runs. It only calls what the other commands call."""
