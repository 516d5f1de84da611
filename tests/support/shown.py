"""What nodes show of themselves after a run, read off their source: no ComfyUI is needed to know it."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "nodes" / "schema"


@dataclass(frozen=True)
class Node:
    """Of a node class: whether it gives the page something to show (`ui`), a text among it, and whether its schema asks
    for it to be sent again.
    """

    name: str
    shows: bool
    text: bool
    again: bool
    expands: bool


def _called(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def _node(found: ast.ClassDef) -> Node | None:
    calls = [part for part in ast.walk(found) if isinstance(part, ast.Call)]
    schemas = [call for call in calls if _called(call) == "Schema"]
    if not schemas:
        return None
    named = {keyword.arg: keyword.value for keyword in schemas[0].keywords if keyword.arg}
    spread = [_called(k.value) for k in schemas[0].keywords if k.arg is None and isinstance(k.value, ast.Call)]
    shows = any(keyword.arg == "ui" for call in calls if _called(call) == "NodeOutput" for keyword in call.keywords)
    keys = [
        key.value
        for part in ast.walk(found)
        if isinstance(part, ast.Dict)
        for key in part.keys
        if isinstance(key, ast.Constant)
    ]
    text = shows and ("text" in keys or any(_called(call) == "PreviewText" for call in calls))
    return Node(ast.literal_eval(named["node_id"]), shows, text, "shown_again" in spread, "enable_expand" in named)


def nodes() -> list[Node]:
    """Every node class of the pack, by name."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.rglob("*.py")))
    found = [_node(part) for tree in trees for part in ast.walk(tree) if isinstance(part, ast.ClassDef)]
    return sorted((node for node in found if node), key=lambda node: node.name)


def with_text() -> list[str]:
    """Node ids of those on which a text can be read after a run: their own, or that of the nodes that ran in their
    place.
    """
    return [node.name for node in nodes() if node.text or node.expands]
