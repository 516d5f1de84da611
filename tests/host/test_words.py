"""Texts of the nodes in the front end: English texts from the schemas, tooltips of outputs, search words."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from make_node_texts import FOLDER, PAGES, definitions, message, text, with_rows

pytestmark = pytest.mark.usefixtures("comfyui")


@pytest.fixture(scope="module")
def info(comfyui) -> dict[str, dict]:
    """Each node's entry in /object_info."""
    from dreambooth_dpo.nodes import node_classes

    return {node.GET_SCHEMA().node_id: node.GET_NODE_INFO_V1() for node in node_classes()}


def test_the_english_texts_are_those_of_the_schemas(info: dict[str, dict]):
    kept = (FOLDER / "en" / "nodeDefs.json").read_text(encoding="utf-8")
    assert kept == text(definitions(info)), (
        "the nodes' texts have changed: python tools/make_node_texts.py, then the other languages by hand"
    )


def test_the_help_pages_describe_settings_in_the_words_of_the_settings(info: dict[str, dict]):
    for name, entry in info.items():
        page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
        assert page == with_rows(page, entry), f"{name}: python tools/make_node_texts.py rewrites its rows"


def test_every_output_has_a_tooltip(info: dict[str, dict]):
    for name, entry in info.items():
        for output, tooltip in zip(entry["output_name"], entry["output_tooltips"], strict=True):
            assert tooltip and tooltip.endswith("."), f"{name}.{output}: {tooltip!r}"


def test_special_characters_of_the_message_format_are_escaped():
    assert (
        message("a prompt with {identifier} | $5 @home") == "a prompt with {'{'}identifier{'}'} {'|'} {'$'}5 {'@'}home"
    )
    assert json.loads(text({"a": {"b": "ä"}})) == {"a": {"b": "ä"}}


def test_search_words_are_given_where_the_host_takes_them(comfyui, monkeypatch: pytest.MonkeyPatch):
    from dreambooth_dpo.nodes import sockets

    @dataclass
    class Newer:
        search_aliases: list[str]

    @dataclass
    class Older:
        node_id: str

    for schema, found in ((Newer, {"search_aliases": ["winner", "loser"]}), (Older, {})):
        monkeypatch.setattr(sockets.io, "Schema", schema)
        assert sockets.found_by("winner", "loser") == found
