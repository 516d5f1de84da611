"""Tests that every name that a module imports from another one of the package is there, also where it is imported late
and in a branch that no test takes.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from rooms import ROOT, modules


def defined(tree: ast.AST) -> Iterator[str]:
    """Names that a module defines or imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def missing(root: Path) -> list[str]:
    """Relative imports of a name that is neither defined by its module nor a module itself, in words."""
    files = modules(root)
    trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in files.items()}
    known = {name: set(defined(tree)) for name, tree in trees.items()}
    found = []
    for name, tree in trees.items():
        folder = files[name].parent.relative_to(root)
        package = list(folder.parts)
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or not node.level:
                continue
            source = ".".join([*package[: len(package) + 1 - node.level], *([node.module] if node.module else [])])
            names = known.get(source, set())
            wrong = [a.name for a in node.names if a.name not in names and f"{source}.{a.name}".strip(".") not in known]
            found += [f"{name}: {n} of {source}" for n in wrong]
    return found


def test_imported_names_exist() -> None:
    assert missing(ROOT) == []


def test_a_name_that_is_gone_is_found(tmp_path: Path) -> None:
    (tmp_path / "dpo_core").mkdir()
    (tmp_path / "dpo_core" / "__init__.py").write_text("")
    (tmp_path / "dpo_core" / "one.py").write_text("HERE = 1\n")
    (tmp_path / "dpo_core" / "two.py").write_text("def f():\n    from .one import GONE, HERE\n    from . import one\n")
    assert [words.split(": ")[1].split(" of ")[0] for words in missing(tmp_path)] == ["GONE"]
