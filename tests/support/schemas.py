"""Helpers that read nodes' schemas."""

from __future__ import annotations


def widgets(node: type) -> list:
    """Inputs of a node that have widgets."""
    return [i for i in node.GET_SCHEMA().inputs if hasattr(i, "default")]


def widget_of(nodes: dict[str, type], node: str, name: str):
    """A widget by node id and name; `nodes`: classes by id."""
    return next(w for w in widgets(nodes[node]) if w.id == name)
