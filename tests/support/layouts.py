"""Sizes of a saved workflow's nodes on the canvas, computed from the file; tests/browser checks them."""

from __future__ import annotations

TITLE, SLOT, WIDGET, GAP, END = 30, 20, 20, 4, 8
TEXT = 50
"""Least height of a multiline widget."""
SEVERAL_LINES = {"text", "held_out_text", "loras", "files"}
VIEWS = {
    "DBDPO_Evaluate": 380,
    "DBDPO_InspectPairs": 560,
    "DBDPO_Rounds": 534,
    "DBDPO_SubjectPhotos": 124,
    "DBDPO_TrainStep": 200,
}
"""Least heights of the pack's own views on nodes (web/*.js)."""
TEXTS = {
    "DBDPO_BuildPairs", "DBDPO_CompareLoras", "DBDPO_Concept", "DBDPO_Evaluate", "DBDPO_FinishCandidates",
    "DBDPO_InspectPairs", "DBDPO_KeepBest", "DBDPO_OwnPairs", "DBDPO_Rounds", "DBDPO_SaveLora", "DBDPO_Strength",
    "DBDPO_SubjectPhotos", "DBDPO_TrainStep",
}  # fmt: skip
"""Nodes that show a text after a run, in their own view (web/said.js)."""
SAID = 90
"""Least height of that view."""
PICTURE = 220
"""Least height of a node's picture after a run."""
SHOW_PICTURES = {
    "DBDPO_SampleCandidates", "DBDPO_Score", "DBDPO_BuildPairs", "DBDPO_Concept", "DBDPO_PreviewPairs",
    "DBDPO_FinishCandidates", "DBDPO_KeepBest", "DBDPO_Strength",
    "DBDPO_CompareLoras", "DBDPO_Rounds", "DBDPO_SubjectPhotos", "LoadImage", "PreviewImage",
}  # fmt: skip


def least_height(node: dict) -> float:
    """Least height below the title, after a run, with its picture."""
    if node["type"] in ("MarkdownNote", "Note"):
        return SLOT + TEXT + GAP + END
    widgets = [slot["name"] for slot in node["inputs"] if "widget" in slot]
    heights = [TEXT if name in SEVERAL_LINES else WIDGET for name in widgets]
    heights += [WIDGET] * (
        len(node["widgets_values"]) - len(widgets)
    )  # what the front end adds, as "control after generate"
    if node["type"] == "PreviewAny":
        heights += [WIDGET, TEXT]
    heights += [VIEWS[node["type"]]] if node["type"] in VIEWS else []
    heights += [SAID] if node["type"] in TEXTS else []
    heights += [PICTURE] if node["type"] in SHOW_PICTURES else []
    rows = max(len(node["inputs"]) - len(widgets), len(node["outputs"]), 1)
    return rows * SLOT + (sum(h + GAP for h in heights) + END if heights else 0)


HTML_SLOT, HTML_WIDGET, HTML_TEXT, HTML_REST, HTML_PICTURE = 20, 32, 60, 46, 240
"""The same for nodes drawn as HTML, rounded up.

The rest is a row of badges. A picture is added below if something else takes the remaining space.
"""

NAMES_A_FILE, HTML_MESSAGE = {"DBDPO_LoadScorer", "CheckpointLoaderSimple", "LoraLoader", "LoadImage"}, 26
"""Nodes under which the front end reports a missing file."""


def html_height(node: dict) -> float:
    if node["type"] in ("MarkdownNote", "Note"):
        return HTML_TEXT
    widgets = [slot["name"] for slot in node["inputs"] if "widget" in slot]
    several = len(SEVERAL_LINES.intersection(widgets)) + (node["type"] == "PreviewAny")
    single = max(len(node["widgets_values"]), len(widgets)) - several + 2 * (node["type"] == "PreviewAny")
    rows = max(len(node["inputs"]) - len(widgets), len(node["outputs"]), 1)
    rest = HTML_REST + (HTML_MESSAGE if node["type"] in NAMES_A_FILE else 0)
    views = VIEWS.get(node["type"], 0) + (SAID if node["type"] in TEXTS else 0)
    return rows * HTML_SLOT + single * HTML_WIDGET + several * HTML_TEXT + views + rest


def tallest(node: dict) -> float:
    """Height below the title after a run, in the front end that needs most."""
    fills = (
        node["type"] in VIEWS or node["type"] in TEXTS or any(slot["name"] in SEVERAL_LINES for slot in node["inputs"])
    )
    grows = HTML_PICTURE if fills and node["type"] in SHOW_PICTURES else 0
    return max(node["size"][1], least_height(node), html_height(node)) + grows


def box(node: dict) -> tuple[float, float, float, float]:
    """Left, top (with the title), right, bottom."""
    (left, top), width = node["pos"], node["size"][0]
    return left, top - TITLE, left + width, top + tallest(node)


def apart(one: tuple, other: tuple) -> float:
    """Distance between two boxes; negative if they overlap."""
    return max(other[0] - one[2], one[0] - other[2], other[1] - one[3], one[1] - other[3])
