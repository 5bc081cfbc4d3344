"""Tests of hedgerow.server.cohort."""
