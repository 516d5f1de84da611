"""Reads YAML that people write: duplicate keys, tabs, other encodings and backslashes are refused with a remedy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .errors import UserError

_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\xa0\u2028\u2029]")
_DRIVE = re.compile(r'^"(?:[A-Za-z]:|\.{1,2}|~)\\(?!\\)')
_ESCAPES = re.compile(r'\\(?![\\"/])')
_PATHS = (
    "In double quotes YAML reads a backslash as the start of a sign (\\t is a tab, \\n a new line): write the path in "
    "single quotes, or with forward slashes (D:/train/new)."
)


def read_text(file: Path, what: str) -> str:
    """The text of a UTF-8 file. Raises UserError that names another encoding; OSError as `Path.read_bytes`."""
    data = file.read_bytes()
    nuls = data[:400].count(0)
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or (nuls and 3 * nuls >= len(data[:400])):
        raise UserError(
            f"{what} {file} is not valid YAML: it is saved as UTF-16 (Windows calls it Unicode). Save it as UTF-8."
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(
            f"{what} {file} is not valid YAML: line {line} is not UTF-8 ({error.reason}). Save it as UTF-8."
        ) from error


def parse(text: str, name: str) -> Any:
    """The value of a YAML document (safe tags only); `name` names it in messages.

    Raises UserError for text that is no YAML, several documents, a key that is given twice, and a Windows path in
    double quotes whose backslashes YAML would take for other signs.
    """
    import yaml

    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check(node, text, name)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{name} is not valid YAML: {_explained(error, text)}") from error


def _check(node: Any, text: str, name: str) -> None:
    """Refuse duplicate keys and lost backslashes in a node and all that it holds; each node once (YAML has aliases)."""
    import yaml

    open_nodes, seen = [("", node)], set()
    while open_nodes:
        path, here = open_nodes.pop()
        if id(here) in seen:
            continue
        seen.add(id(here))
        if isinstance(here, yaml.MappingNode):
            first: dict[str, Any] = {}
            for key, value in here.value:
                inner = f"{path}.{key.value}".lstrip(".") if isinstance(key, yaml.ScalarNode) else path
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    if key.value in first:
                        lines = first[key.value].start_mark.line + 1, key.start_mark.line + 1
                        raise UserError(
                            f"{name}: {inner} is given twice, in line {lines[0]} and in line {lines[1]}; the second "
                            "would replace the first. Put all of it in one place."
                        )
                    first[key.value] = key
                open_nodes.append((inner, value))
        elif isinstance(here, yaml.SequenceNode):
            open_nodes += [(path, value) for value in here.value]
        elif here.style == '"':
            raw = text[here.start_mark.index : here.end_mark.index]
            if not _lost_backslash(raw, here.value):
                continue
            line = here.start_mark.line + 1
            raise UserError(
                f"{name}: {path} in line {line} is {raw}, which YAML reads as {_plain(here.value)}. {_PATHS}"
            )


def _plain(value: str) -> str:
    """Text with its control signs named: D:<tab>rain<new line>ew."""
    names = {"\t": "<tab>", "\n": "<new line>", "\r": "<return>"}
    return _CONTROL.sub(lambda sign: names.get(sign[0], f"<U+{ord(sign[0]):04X}>"), value)


def _lost_backslash(raw: str, value: str) -> bool:
    """Whether a scalar in double quotes is a path that lost a backslash: of a drive, or one with control signs."""
    escapes = _ESCAPES.search(raw) is not None
    return escapes and (_DRIVE.match(raw) is not None or _CONTROL.search(value) is not None)


def _explained(error: Exception, text: str) -> str:
    """YAML's message, with a remedy where the cause is known."""
    said, mark = str(error), getattr(error, "problem_mark", None)
    lines = text.splitlines()
    line = lines[mark.line] if mark is not None and mark.line < len(lines) else ""
    number = mark.line + 1 if mark is not None else 0
    if isinstance(error, RecursionError):
        return "it is nested too deeply."
    if "escape" in said and "\\" in line:
        return f"line {number}: {line.strip()}. {_PATHS}"
    if "'\\t'" in said or "\t" in line[: len(line) - len(line.lstrip())]:
        return f"line {number} is indented with a tab, which YAML does not allow. Use spaces."
    if "single document" in said:
        return f"line {number} starts a second document (---). Keep one."
    return said
