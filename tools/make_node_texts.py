"""What the front end shows of every node in English, and the help pages' rows of settings, from the nodes' own schemas.

    python tools/make_node_texts.py

It writes locales/en/nodeDefs.json, and in web/docs the row of every input that is a setting of the engine. Other
languages are written by hand; tests/test_locales.py names what one lacks.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from hosting import ROOT, Server

FOLDER = ROOT / "locales"
PAGES = ROOT / "web" / "docs"
# The front end reads texts as vue-i18n messages, in which these have a meaning.
SPECIAL = re.compile(r"[{}@|$]")
HEADER = "| input | default (range) | what it does |\n| --- | --- | --- |\n"
UNIT = re.compile(r" Unit: ([a-z ]+)\.$")


def message(text: str) -> str:
    """Text that vue-i18n shows as it is."""
    return SPECIAL.sub(lambda found: f"{{'{found[0]}'}}", text)


def definitions(info: dict[str, dict]) -> dict[str, dict]:
    """nodeDefs of the pack's nodes, from their entries in /object_info."""
    return {name: _node(entry) for name, entry in sorted(info.items()) if name.startswith("DBDPO_")}


def _node(entry: dict) -> dict:
    inputs = {}
    for part in ("required", "optional"):
        for name, (_, *options) in entry["input"].get(part, {}).items():
            given = options[0] if options else {}
            inputs[name] = _named(given.get("display_name") or name, given.get("tooltip"))
    outputs = zip(entry["output_name"], entry["output_tooltips"], strict=True)
    return {
        "display_name": message(entry["display_name"]),
        "description": message(entry["description"]),
        "inputs": inputs,
        "outputs": {str(number): _named(*output) for number, output in enumerate(outputs)},
    }


def _named(name: str, tooltip: str | None) -> dict[str, str]:
    return {"name": message(name), "tooltip": message(tooltip or "")}


def text(nodes: dict[str, dict]) -> str:
    return json.dumps(nodes, indent=2, ensure_ascii=False) + "\n"


def _row(name: str, kind: str | list, options: dict, optional: bool) -> str:
    """The row of a help page's table of inputs."""
    unit = UNIT.search(options["tooltip"])
    default = options["default"]
    choices = kind if isinstance(kind, list) else options.get("options")
    if choices:
        others = ", ".join(f"`{c}`" for c in choices if c != default)
        told = f"`{default}` (or {others})"
    elif "min" in options:
        step = options.get("step") if kind == "INT" and options.get("step", 1) > 1 else None
        told = f"{default:.10g} ({options['min']:.8g} to {options['max']:.10g}{' ' + unit[1] if unit else ''}"
        told += f", in steps of {step})" if step else ")"
    elif isinstance(default, bool):
        told = "on" if default else "off"
    else:
        told = f"`{default}`"
    what = UNIT.sub("", options["tooltip"]).replace("|", "\\|")
    return f"| `{name}` | {'optional, ' if optional else ''}{told} | {what} |\n"


def with_rows(page: str, entry: dict) -> str:
    """A help page with today's rows of settings; other rows stay as they are, and new ones stand where the node has
    them.
    """
    before, table = page.split("## Inputs\n\n" + HEADER, 1)
    table, after = table.split("\n\n", 1)
    rows = {row.split("`", 2)[1]: row + "\n" for row in table.split("\n")}
    order = list(rows)
    for part in ("required", "optional"):
        earlier = None
        for name in entry["input_order"].get(part, []):
            if name not in order:
                order.insert(0 if earlier is None else order.index(earlier) + 1, name)
            kind, *options = entry["input"][part][name]
            if options and "dbdpo_setting" in options[0]:
                rows[name] = _row(name, kind, options[0], part == "optional")
            rows.setdefault(name, f"| `{name}` | | |\n")
            earlier = name
    return f"{before}## Inputs\n\n{HEADER}{''.join(rows[name] for name in order)}\n{after}"


def main() -> None:
    with tempfile.TemporaryDirectory() as base, Server(Path(base)) as server:
        info = server.get("/object_info")
    path = FOLDER / "en" / "nodeDefs.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text(definitions(info)), encoding="utf-8")
    print(f"{path.relative_to(ROOT)}: {len(path.read_text(encoding='utf-8')) // 1024} KB")
    for page in sorted(PAGES.glob("DBDPO_*.md")):
        kept = page.read_text(encoding="utf-8")
        made = with_rows(kept, info[page.stem])
        if made != kept:
            page.write_text(made, encoding="utf-8")
            print(page.relative_to(ROOT))


if __name__ == "__main__":
    main()
