"""What the fleet knows, in one SQLite file."""
