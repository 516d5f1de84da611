"""The engine: candidates, scores, pairs, preference training, rounds.

Depends on torch, but not on ComfyUI nodes or on any one backend.
"""
