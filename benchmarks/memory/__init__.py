"""Predicted memory of training and sampling with full-size models, and its check against real steps."""
