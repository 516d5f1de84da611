"""Crash test: a run killed at random moments, with and without loss of what was not flushed to disk."""
