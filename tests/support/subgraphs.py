"""Subgraphs: a part of a graph as one node, as the front end saves it, and blueprints that a host offers from them."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from workflows import inputs_of, to_ui

FOLDER = Path(__file__).parents[2] / "subgraphs"
_SPACE = uuid.UUID("6f1d0c52-3f5e-4c0b-8a57-0d5b0a6b7f11")
INPUT, OUTPUT = -10, -20
"""Ids of a subgraph's own ends in its links."""
FIRST = 101
"""Id of the first inner node: apart from those of the graph around it."""


@dataclass(frozen=True)
class Socket:
    """An input or output of the subgraph's node.

    For an input, `ends` are the (inner node, its input) that it feeds; for an output, the one (inner node, its slot).
    """

    name: str
    ends: tuple[tuple[str, str | int], ...]
    label: str = ""


@dataclass(frozen=True)
class Part:
    """A part of a graph that is one node. nodes: as to_ui takes them. An input that feeds inner widgets is a widget."""

    name: str
    description: str
    nodes: dict
    inputs: tuple[Socket, ...]
    outputs: tuple[Socket, ...]
    aliases: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return str(uuid.uuid5(_SPACE, self.name))


def _ids(part: Part) -> dict[str, int]:
    return {name: FIRST + i for i, name in enumerate(part.nodes)}


def _spec(part: Part, info: dict, end: tuple[str, str]) -> list:
    """The inner widget's or socket's specification, with the value that it has in the subgraph as its default."""
    node = part.nodes[end[0]]
    spec = copy.deepcopy(inputs_of(info[node["class_type"]])[end[1]])
    if end[1] in node["inputs"] and len(spec) > 1:
        spec[1]["default"] = node["inputs"][end[1]]
    elif end[1] in node["inputs"]:
        spec.append({"default": node["inputs"][end[1]]})
    return spec


def _kind(spec: list) -> str:
    return "COMBO" if isinstance(spec[0], list) else spec[0]


def _returned(part: Part, info: dict, socket: Socket) -> str:
    name, slot = socket.ends[0]
    return info[part.nodes[name]["class_type"]]["output"][slot]


def definition_of(part: Part, info: dict) -> dict:
    """The subgraph's node as a host's /object_info would describe it; to_ui takes it as any node's."""
    required = {socket.name: _spec(part, info, socket.ends[0]) for socket in part.inputs}
    return {
        "input": {"required": required},
        "input_order": {"required": list(required)},
        "output": [_returned(part, info, s) for s in part.outputs],
        "output_name": [s.name for s in part.outputs],
    }


def _slot(part: Part, way: str, socket: Socket, kind: str, links: list[int], place: list[float]) -> dict:
    made = {
        "id": str(uuid.uuid5(_SPACE, f"{part.name}/{way}/{socket.name}")),
        "name": socket.name, "type": kind, "linkIds": links, "pos": place,
    }  # fmt: skip
    return {**made, "label": socket.label} if socket.label else made


def to_subgraph(part: Part, info: dict) -> dict:
    """The definition of a subgraph, as the front end saves it (definitions.subgraphs of a workflow)."""
    ids, flat = _ids(part), to_ui(part.nodes, info)
    by_name = dict(zip(part.nodes, flat["nodes"], strict=True))
    links = [
        {
            "id": number, "origin_id": ids[_name(part, source)], "origin_slot": slot,
            "target_id": ids[_name(part, target)], "target_slot": entry, "type": kind,
        }
        for number, source, slot, target, entry, kind in flat["links"]
    ]  # fmt: skip
    for name, made in by_name.items():
        made["id"] = ids[name]

    def linked(origin: tuple[int, int], target: tuple[int, int], kind: str) -> int:
        number = len(links) + 1
        links.append({
            "id": number, "origin_id": origin[0], "origin_slot": origin[1], "target_id": target[0],
            "target_slot": target[1], "type": kind,
        })  # fmt: skip
        return number

    inputs, outputs = [], []
    left, right = _sides(flat["nodes"])
    for i, socket in enumerate(part.inputs):
        kind, numbers = _kind(_spec(part, info, socket.ends[0])), []
        for name, key in socket.ends:
            entry = next(n for n, slot in enumerate(by_name[name]["inputs"]) if slot["name"] == key)
            numbers.append(linked((INPUT, i), (ids[name], entry), kind))
            by_name[name]["inputs"][entry]["link"] = numbers[-1]
        inputs.append(_slot(part, "in", socket, kind, numbers, [left - 60, 20 + i * 20]))
    for i, socket in enumerate(part.outputs):
        (name, slot), kind = socket.ends[0], _returned(part, info, socket)
        number = linked((ids[name], slot), (OUTPUT, i), kind)
        _output(by_name[name], info, slot)["links"].append(number)
        outputs.append(_slot(part, "out", socket, kind, [number], [right + 60, 20 + i * 20]))
    return {
        "id": part.id, "version": 1, "revision": 0, "config": {}, "name": part.name,
        "state": {
            "lastGroupId": 0, "lastNodeId": max(ids.values()), "lastLinkId": len(links), "lastRerouteId": 0,
        },
        "inputNode": {"id": INPUT, "bounding": [left - 200, 0, 160, 40 + 20 * len(inputs)]},
        "outputNode": {"id": OUTPUT, "bounding": [right + 40, 0, 140, 40 + 20 * len(outputs)]},
        "inputs": inputs, "outputs": outputs, "widgets": [], "nodes": flat["nodes"], "groups": [], "links": links,
        "extra": {}, "category": "DreamBooth DPO", "description": part.description,
    }  # fmt: skip


def _name(part: Part, number: int) -> str:
    """The inner node of to_ui's number."""
    return list(part.nodes)[number - 1]


def _sides(nodes: Iterable[dict]) -> tuple[float, float]:
    return min(n["pos"][0] for n in nodes), max(n["pos"][0] + n["size"][0] for n in nodes)


def _output(node: dict, info: dict, slot: int) -> dict:
    """An output of a node, with those before it: to_ui leaves out a host's outputs that nothing in the graph uses."""
    definition = info[node["type"]]
    for i in range(len(node["outputs"]), slot + 1):
        node["outputs"].append({"name": definition["output_name"][i], "type": definition["output"][i], "links": []})
    return node["outputs"][slot]


def to_blueprint(part: Part, info: dict, size: tuple[int, int] = (420, 460)) -> dict:
    """The file that a host offers in its node library: one node, and what is in it."""
    node = {"class_type": part.id, "inputs": {}, "pos": [0, 0], "size": list(size), "title": part.name}
    made = with_parts({"only": node}, [part], info)
    extra = {"BlueprintDescription": part.description, "BlueprintSearchAliases": list(part.aliases)}
    return {"id": str(uuid.uuid5(_SPACE, f"{part.name}/file")), "revision": 0, **made, "extra": extra}


def with_parts(graph: dict, parts: Iterable[Part], info: dict, notes: list[dict] = (), **more: object) -> dict:
    """to_ui for a graph in which some nodes are subgraphs: their class_type is the part's id. more: as for to_ui."""
    parts = list(parts)
    made = to_ui(graph, {**info, **{part.id: definition_of(part, info) for part in parts}}, notes, **more)
    by_id = {part.id: part for part in parts}
    for node in (n for n in made["nodes"] if n["type"] in by_id):
        part = by_id[node["type"]]
        node["properties"].pop("Node name for S&R")
        for slots, sockets in ((node["inputs"], part.inputs), (node["outputs"], part.outputs)):
            for slot, socket in zip(slots, sockets, strict=True):
                slot.update({"label": socket.label} if socket.label else {})
    return {**made, "definitions": {"subgraphs": [to_subgraph(part, info) for part in parts]}}


def unpacked(workflow: dict) -> dict:
    """The workflow with its subgraphs' nodes in their place, as the front end unpacks (and runs) them."""
    whole = copy.deepcopy(workflow)
    definitions = {d["id"]: d for d in whole.pop("definitions", {}).get("subgraphs", [])}
    for node in [n for n in whole["nodes"] if n["type"] in definitions]:
        _unpack(whole, node, definitions[node["type"]])
    for node in whole["nodes"]:
        for entry, slot in enumerate(node["inputs"]):
            slot["link"] = next((k[0] for k in whole["links"] if k[3:5] == [node["id"], entry]), None)
    return whole


def _unpack(whole: dict, node: dict, definition: dict) -> None:
    base = 1000 * node["id"]
    inner = {n["id"]: n for n in copy.deepcopy(definition["nodes"])}
    for made in inner.values():
        made["id"] += base
    links = [link for link in whole["links"] if node["id"] not in (link[1], link[3])]
    into = {link[4]: link for link in whole["links"] if link[3] == node["id"]}
    out = {}
    for link in definition["links"]:
        if link["target_id"] == OUTPUT:
            out[link["target_slot"]] = (base + link["origin_id"], link["origin_slot"])
    for link in definition["links"]:
        target = [base + link["target_id"], link["target_slot"], link["type"]]
        if link["origin_id"] != INPUT and link["target_id"] != OUTPUT:
            links.append([0, base + link["origin_id"], link["origin_slot"], *target])
        elif link["origin_id"] == INPUT and link["origin_slot"] in into:
            links.append([0, *into[link["origin_slot"]][1:3], *target])
        elif link["origin_id"] == INPUT and "widget" in node["inputs"][link["origin_slot"]]:
            _set(inner[link["target_id"]], link["target_slot"], _value(node, link["origin_slot"]))
    links += [[0, *out[link[2]], *link[3:]] for link in whole["links"] if link[1] == node["id"]]
    whole["links"] = [[i + 1, *link[1:]] for i, link in enumerate(links)]
    whole["nodes"] = [n for n in whole["nodes"] if n is not node] + list(inner.values())


def _place(node: dict, entry: int) -> int:
    """Index of an input's widget among the widgets; "control after generate" and "image" are not counted."""
    return sum("widget" in slot for slot in node["inputs"][:entry])


def _value(node: dict, entry: int) -> object:
    return node["widgets_values"][_place(node, entry)]


def _set(node: dict, entry: int, value: object) -> None:
    widgets = sum("widget" in slot for slot in node["inputs"])
    assert widgets == len(node["widgets_values"]), f"{node['type']} has widgets that the front end adds"
    node["widgets_values"][_place(node, entry)] = value
