"""Implementations of the TextToImage protocol; each host library is imported in one file alone."""
