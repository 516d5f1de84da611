"""The engine: candidates, scores, pairs, preference training, rounds.

Knows torch; knows nothing of nodes or of any one backend.
"""
