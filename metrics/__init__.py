"""Scorers and guards: they map images, prompts and reference photos to one number per image.

Importing this package loads nothing heavy.
"""
