"""What nodes show after a run, read from their source without ComfyUI."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "nodes" / "schema"


@dataclass(frozen=True)
class Node:
    """Whether a node class returns `ui`, whether that has a text, and whether its schema asks to send it again."""

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
    """Ids of nodes that show a text after a run, themselves or through nodes that they expand into."""
    return [node.name for node in nodes() if node.text or node.expands]
