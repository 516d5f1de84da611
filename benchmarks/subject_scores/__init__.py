"""Fidelity scorers with and without masks, by their agreement with the oracle within a prompt."""
