"""Conversion of graphs to workflows as the front end saves them, and back to API form."""

from __future__ import annotations

from pathlib import Path

from layouts import TITLE, box

FOLDER = Path(__file__).parents[2] / "example_workflows"
OURS = "DBDPO_"
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}


def _is_widget(spec: list) -> bool:
    return isinstance(spec[0], list) or spec[0] in WIDGETS


def inputs_of(definition: dict) -> dict[str, list]:
    """All inputs by name, in the front end's order."""
    given, order = definition["input"], definition["input_order"]
    return {name: given[part][name] for part in ("required", "optional") for name in order.get(part, [])}


def _default(spec: list) -> object:
    options = spec[1] if len(spec) > 1 else {}
    if "default" in options:
        return options["default"]
    choices = spec[0] if isinstance(spec[0], list) else options.get("options", [])
    return choices[0] if choices else {"INT": 0, "FLOAT": 0.0, "BOOLEAN": False}.get(str(spec[0]), "")


def _controlled(name: str, spec: list) -> bool:
    """Whether the front end adds a "control after generate" widget after this one."""
    options = spec[1] if len(spec) > 1 else {}
    return spec[0] == "INT" and options.get("control_after_generate", name in ("seed", "noise_seed"))


def _lasting(slots: list, ours: bool, used: list[bool]) -> list:
    """Slots of a host's own node up to the last one in use; a subgraph's, and this pack's, are all kept.

    Hosts differ in the slots after it, and the front end adds those that they have.
    """
    return slots if ours else slots[: max((i + 1 for i, is_used in enumerate(used) if is_used), default=0)]


VIEW_SCALE = 0.9
"""Zoom at which a workflow opens: notes, titles and widgets can be read."""
VIEW_LEFT, VIEW_TOP = 90, 130
"""Where its first column begins on the screen, beside and below the front ends' bars. Unit: pixels."""


def _group(title: str, members: list[dict]) -> dict:
    """A frame around nodes, with room for its title and for the badges above theirs."""
    boxes = [box(node) for node in members]
    left, top = min(b[0] for b in boxes) - GROUP_EDGE, min(b[1] for b in boxes) - TITLE - GROUP_EDGE
    right, bottom = max(b[2] for b in boxes) + GROUP_EDGE, max(b[3] for b in boxes) + GROUP_EDGE
    return {"title": title, "bounding": [left, top, right - left, bottom - top], "color": "#3f789e", "font_size": 24}


GROUP_EDGE = 20


def _view(nodes: list[dict], groups: list[dict]) -> dict:
    """Zoom and offset with the first column at the top left of the canvas."""
    left = min((node["pos"][0] for node in nodes), default=0)
    top = min([node["pos"][1] - TITLE for node in nodes] + [group["bounding"][1] for group in groups], default=0)
    return {"scale": VIEW_SCALE, "offset": [VIEW_LEFT / VIEW_SCALE - left, VIEW_TOP / VIEW_SCALE - top]}


def to_ui(graph: dict, info: dict, notes: list[dict] = (), columns: dict[str, tuple[int, int]] | None = None) -> dict:
    """A graph {id: {class_type, inputs, pos, size?, title?}} as the front end saves it.

    Inputs not given take their defaults. columns: title of a group -> left edges of its nodes, from and below.
    """
    numbers = {name: i + 1 for i, name in enumerate(graph)}
    links, nodes, outgoing = [], [], {}
    for name, node in graph.items():
        definition, slots, values = info[node["class_type"]], [], []
        for key, spec in inputs_of(definition).items():
            given, kind = node["inputs"].get(key), "COMBO" if isinstance(spec[0], list) else spec[0]
            slot = {"name": key, "type": kind, "link": None}
            if isinstance(given, list):
                links.append([len(links) + 1, numbers[given[0]], given[1], numbers[name], len(slots), kind])
                slot["link"] = len(links)
                outgoing.setdefault((given[0], given[1]), []).append(len(links))
            if _is_widget(spec):
                slot["widget"] = {"name": key}
                values.append(_default(spec) if given is None or isinstance(given, list) else given)
                if _controlled(key, spec):
                    values.append("fixed")
                if isinstance(spec[1] if len(spec) > 1 else {}, dict) and spec[1:] and spec[1].get("image_upload"):
                    values.append("image")
            slots.append(slot)
        outputs = zip(definition["output_name"], definition["output"], strict=True)
        made = {
            "id": numbers[name], "type": node["class_type"], "pos": node["pos"],
            "size": node.get("size", [320, 200]), "flags": {},
            "order": numbers[name] - 1, "mode": 0, "inputs": slots,
            "outputs": [{"name": n, "type": t, "links": outgoing.get((name, i))} for i, (n, t) in enumerate(outputs)],
            "properties": {"Node name for S&R": node["class_type"]}, "widgets_values": values,
        }  # fmt: skip
        if "title" in node:
            made["title"] = node["title"]
        nodes.append(made)
    for made, name in zip(nodes, graph, strict=True):
        for i, output in enumerate(made["outputs"]):
            output["links"] = outgoing.get((name, i), [])
        made["outputs"] = _lasting(
            made["outputs"],
            "python_module" not in info[made["type"]] or made["type"].startswith(OURS),
            [bool(o["links"]) for o in made["outputs"]],
        )
    for i, note in enumerate(notes):
        nodes.append({
            "id": len(graph) + i + 1, "type": "MarkdownNote", "pos": note["pos"], "size": note["size"], "flags": {},
            "order": len(graph) + i,
            "mode": 0, "inputs": [], "outputs": [], "properties": {}, "widgets_values": [note["text"]],
            "color": "#432", "bgcolor": "#653",
        })  # fmt: skip
    groups = [
        _group(title, [n for n in nodes[: len(graph)] if low <= n["pos"][0] < high])
        for title, (low, high) in (columns or {}).items()
    ]
    view = _view(nodes, groups)  # twice: the newest front end does not use ds of a template (web/start_view.js)
    return {
        "last_node_id": len(nodes), "last_link_id": len(links), "nodes": nodes, "links": links, "groups": groups,
        "config": {}, "extra": {"ds": view, "dbdpo_start": view},
        "version": 0.4,
    }  # fmt: skip


def to_api(workflow: dict, info: dict) -> dict:
    """The API form that the front end sends for a saved workflow; node ids are strings."""
    sources = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    graph = {}
    for node in workflow["nodes"]:
        if node["type"] in ("MarkdownNote", "Note"):
            continue
        specs, values, inputs = inputs_of(info[node["type"]]), list(node["widgets_values"]), {}
        linked = {slot["name"]: slot["link"] for slot in node["inputs"]}
        for key, spec in specs.items():
            if _is_widget(spec):
                inputs[key] = values.pop(0)
                if _controlled(key, spec) or (spec[1:] and spec[1].get("image_upload")):
                    values.pop(0)
            if linked.get(key):
                inputs[key] = sources[linked[key]]
        assert not values, f"{node['type']} has widget values left over: {values}"
        graph[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return graph
