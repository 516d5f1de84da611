"""Looking at nodes' schemas."""

from __future__ import annotations


def widgets(node: type) -> list:
    """Inputs that a user sets on the node itself."""
    return [i for i in node.GET_SCHEMA().inputs if hasattr(i, "default")]


def widget_of(nodes: dict[str, type], node: str, name: str):
    """A widget of a node by both names; `nodes`: classes by id."""
    return next(w for w in widgets(nodes[node]) if w.id == name)
