"""Run a compiled file on this host, for verification."""
