"""Tests of hedgerow.server.simulation."""
