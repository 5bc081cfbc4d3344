"""Tests of hedgerow.server.grids."""
