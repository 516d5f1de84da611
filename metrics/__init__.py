"""Scorers and guards: pictures, prompts and reference photos go in, one number a picture comes out.

Imports nothing heavy.
"""
