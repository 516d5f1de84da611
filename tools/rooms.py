"""Prints the package layout from its imports: rooms (packages), files, imports between rooms, and violations.

    python tools/rooms.py            # a table; exit status 1 if the import rule is violated
    python tools/rooms.py --arrows   # also every arrow between rooms, with its number of imports

An arrow is an import of one room from another. The rule: arrows point down ORDER, never up, and there is no import
cycle. Imports inside functions count; those under TYPE_CHECKING do not.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ORDER = (
    "benchmarks", "cli", "terminal", "doctor", "nodes", "toybox/train",
    "headless_compare", "headless", "headless_inputs", "toybox",
    "metrics",
    "dpo_core/processes", "dpo_core/loop",
    "dpo_core/report", "dpo_core/backends", "dpo_core/training", "dpo_core/evaluation", "dpo_core/pairs",
    "dpo_core/scoring", "dpo_core/sampling", "dpo_core/run", "dpo_core",
)  # fmt: skip
"""From top to bottom. "dpo_core" is its foundation: the files beside the rooms."""
Arrow = tuple[str, str]


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Dotted name -> file of every module of the package, without tests and tools."""
    folders = ("benchmarks", "doctor", "dpo_core", "metrics", "nodes", "terminal", "toybox")
    files = [*root.glob("*.py"), *(f for folder in folders for f in (root / folder).rglob("*.py"))]
    return {
        ".".join(f.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): f
        for f in files
        if f.name != "conftest.py"
    }


def room_of(module: str) -> str:
    """Room of a module: "dpo_core.training.memory.levels" -> "dpo_core/training".

    A file beside the rooms of dpo_core belongs to "dpo_core"; a file of the root is a room of its own.
    """
    parts = module.split(".")
    for count in (2, 1):
        if (name := "/".join(parts[:count])) in ORDER and len(parts) >= count:
            return name
    return parts[0]


def _targets(tree: ast.AST, package: list[str], known: dict[str, Path]) -> list[str]:
    found = []
    for node in _imports(tree):
        if not node.level:
            continue
        base = package[: len(package) - node.level + 1]
        target = ".".join([*base, *(node.module.split(".") if node.module else [])])
        for name in node.names:
            inner = f"{target}.{name.name}".strip(".")
            found.append(inner if inner in known else target)
    return [t for t in found if t]


def _imports(tree: ast.AST) -> list[ast.ImportFrom]:
    found: list[ast.ImportFrom] = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        found += [node] if isinstance(node, ast.ImportFrom) else _imports(node)
    return found


def imports(root: Path = ROOT) -> dict[str, set[str]]:
    """For each module, the modules of the package that it imports."""
    known = modules(root)
    result = {}
    for name, file in known.items():
        package = name.split(".") if file.name == "__init__.py" and name != "__init__" else name.split(".")[:-1]
        result[name] = set(_targets(ast.parse(file.read_text(encoding="utf-8")), package, known)) - {name}
    return result


def arrows(found: dict[str, set[str]]) -> Counter[Arrow]:
    """Numbers of imports from one room into another."""
    return Counter(
        (room_of(a), room_of(b)) for a, targets in found.items() for b in targets if room_of(a) != room_of(b)
    )


def upward(counted: Counter[Arrow]) -> list[Arrow]:
    """Imports between rooms that point up in ORDER."""
    place = {name: i for i, name in enumerate(ORDER)}
    return sorted(arrow for arrow in counted if all(r in place for r in arrow) and place[arrow[0]] > place[arrow[1]])


def circles(found: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other (strongly connected components, by Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in found.get(name, ()):
            if target not in index:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        if low[name] == index[name]:
            group = [stack.pop()]
            while group[-1] != name:
                group.append(stack.pop())
            if len(group) > 1:
                groups.append(sorted(group))

    for name in found:
        if name not in index:
            visit(name)
    return sorted(groups)


def main() -> int:
    found = imports()
    counted = arrows(found)
    rooms = {name: sorted(m for m in found if room_of(m) == name) for name in {room_of(m) for m in found}}
    print(f"{'room':<22} files  arrows out  arrows in  levels")
    for name in sorted(rooms, key=lambda r: ORDER.index(r) if r in ORDER else -1):
        out, into = (sum(n for arrow, n in counted.items() if arrow[side] == name) for side in (0, 1))
        print(f"{name:<22} {len(rooms[name]):>5}  {out:>10}  {into:>9}  {max(m.count('.') for m in rooms[name])}")
    between = sum(map(len, found.values()))
    print(f"{len(found)} files, {sum(counted.values())} imports between rooms, {between} between files")
    if "--arrows" in sys.argv:
        for (one, other), count in sorted(counted.items()):
            print(f"  {one} -> {other}: {count}")
    for one, other in upward(counted):
        pairs = [(a, b) for a in found for b in found[a] if (room_of(a), room_of(b)) == (one, other)]
        print(f"UP: {one} -> {other}: {pairs}")
    for group in circles(found):
        print(f"CYCLE: {', '.join(group)}")
    return 1 if upward(counted) or circles(found) else 0


if __name__ == "__main__":
    sys.exit(main())
