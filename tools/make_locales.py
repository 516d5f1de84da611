"""Writes the English texts of every node for the front end, from the nodes' schemas.

`python tools/make_locales.py` writes locales/en/nodeDefs.json. Other languages are written by hand;
tests/test_locales.py reports missing texts.
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
# The front end reads texts as vue-i18n messages, in which these characters are special.
SPECIAL = re.compile(r"[{}@|$]")


def message(text: str) -> str:
    """The text escaped so that vue-i18n shows it unchanged."""
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


def main() -> None:
    with tempfile.TemporaryDirectory() as base, Server(Path(base)) as server:
        path = FOLDER / "en" / "nodeDefs.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text(definitions(server.get("/object_info"))), encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {len(path.read_text(encoding='utf-8')) // 1024} KB")


if __name__ == "__main__":
    main()
