"""What every node must have: names, tooltips, help pages and valid defaults; and the pack's import."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from schemas import widgets

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "web" / "docs"
IDS = [
    "DBDPO_LoadToybox",
    "DBDPO_ToyboxEpochs",
    "DBDPO_SubjectPhotos",
    "DBDPO_Concept",
    "DBDPO_PromptSet",
    "DBDPO_SampleCandidates",
    "DBDPO_LoadScorer",
    "DBDPO_Score",
    "DBDPO_BuildPairs",
    "DBDPO_PreviewPairs",
    "DBDPO_InspectPairs",
    "DBDPO_OwnPairs",
    "DBDPO_FinishCandidates",
    "DBDPO_TrainStep",
    "DBDPO_Evaluate",
    "DBDPO_KeepBest",
    "DBDPO_Strength",
    "DBDPO_CompareLoras",
    "DBDPO_SaveLora",
    "DBDPO_Rounds",
]
every_node = pytest.mark.parametrize("name", IDS)
HEAVY = (
    "torch",
    "numpy",
    "comfy",
    "comfy_api",
    "comfy_execution",
    "folder_paths",
    "nodes",
    "diffusers",
    "transformers",
    "pydantic",
)
LONGEST = 30


# --- the pack, opened as ComfyUI opens it ---


def test_the_pack_opens_with_all_its_nodes(pack, extension, nodes):
    from comfy_api.latest import ComfyExtension

    assert isinstance(extension, ComfyExtension)
    assert list(nodes) == IDS
    assert not hasattr(pack, "NODE_CLASS_MAPPINGS"), "with it, ComfyUI would pass over comfy_entrypoint"
    assert (ROOT / pack.WEB_DIRECTORY).is_dir()


def test_nodes_stay_inside_the_pack(pack, nodes):
    """All imports are relative: neither the installed package nor ComfyUI's own `nodes` is imported."""
    assert all(node.__module__.startswith(f"{pack.__name__}.nodes.") for node in nodes.values())


def test_importing_the_root_has_no_side_effects(comfyui: Path, tmp_path: Path):
    """Importing the root imports no ComfyUI module, even if it could."""
    program = f"""
import importlib.util, sys
sys.path.append({str(comfyui)!r})
spec = importlib.util.spec_from_file_location("pack", {str(ROOT / "__init__.py")!r})
module = importlib.util.module_from_spec(spec)
sys.modules["pack"] = module
before, path = set(sys.modules), list(sys.path)
spec.loader.exec_module(module)
assert sys.path == path
loaded = {{m.partition(".")[0] for m in set(sys.modules) - before}}
print(*sorted(loaded & set({HEAVY!r})), *sorted(m for m in sys.modules if m.startswith("pack.")))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")
    assert list(tmp_path.iterdir()) == []


# --- each node's schema ---


@every_node
def test_a_node_is_named_and_described(nodes, name):
    schema = nodes[name].GET_SCHEMA()
    assert schema.node_id == name and name.startswith("DBDPO_")
    assert schema.category == "DreamBooth DPO"
    assert schema.display_name and not schema.display_name.startswith("DBDPO")
    assert schema.description.endswith(".") and len(schema.description) > 20


@every_node
def test_every_input_has_a_tooltip(nodes, name):
    for socket in nodes[name].GET_SCHEMA().inputs:
        assert socket.tooltip and socket.tooltip.endswith("."), f"{socket.id}: {socket.tooltip!r}"


@every_node
def test_the_schema_is_valid(nodes, name):
    schema = nodes[name].GET_SCHEMA()
    schema.validate()
    assert all(output.display_name for output in schema.outputs)
    json.dumps(nodes[name].GET_NODE_INFO_V1(), allow_nan=False)


@every_node
def test_every_default_is_a_value_that_may_be_chosen(nodes, name):
    for widget in widgets(nodes[name]):
        if getattr(widget, "options", None) is not None:
            assert len(widget.options) == len(set(widget.options)) and widget.options
            assert widget.default in (None, *widget.options), widget.id
        elif hasattr(widget, "min"):
            assert widget.min <= widget.default <= widget.max, widget.id
        else:
            assert widget.default is not None, f"{widget.id} has no default"


@every_node
def test_execute_is_short_and_takes_the_inputs_by_name(nodes, name):
    node = nodes[name]
    assert len(inspect.getsource(node.execute).splitlines()) <= LONGEST
    taken = inspect.signature(node.execute).parameters
    others = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in taken.values())
    inputs = {i.id: i for i in node.GET_SCHEMA().inputs}
    for socket in inputs.values():
        assert socket.id in taken or others, f"execute() does not take {socket.id}"
        if socket.optional and socket.id in taken:  # what comes with the others may be missing among them
            assert taken[socket.id].default is None, f"execute() cannot do without {socket.id}, which is optional"
    assert {n for n, p in taken.items() if p.kind is not inspect.Parameter.VAR_KEYWORD} <= set(inputs)


def checks(node: type) -> list[str]:
    """Names of the inputs that the node's validate_inputs takes."""
    own = next((c.__dict__["validate_inputs"] for c in node.__mro__ if "validate_inputs" in c.__dict__), None)
    if own is None or not own.__func__.__module__.startswith(node.__module__):
        return []
    return [p for p in inspect.signature(node.validate_inputs).parameters]


@pytest.mark.parametrize("name", IDS)
def test_unknown_values_of_linked_inputs_are_accepted(nodes, name):
    """ComfyUI validates before anything runs; the value of a linked input is None then."""
    asked = checks(nodes[name])
    assert set(asked) <= {i.id for i in nodes[name].GET_SCHEMA().inputs}
    for linked in asked:
        assert nodes[name].validate_inputs(**{linked: None}) is True, linked


@every_node
def test_defaults_pass_the_nodes_own_validation(nodes, name):
    values = {w.id: w.default for w in widgets(nodes[name])}
    if name == "DBDPO_LoadScorer":
        values["scorer"] = "toybox reward"
    if name == "DBDPO_CompareLoras":  # its default names files that a user has
        del values["loras"]
    if name == "DBDPO_SubjectPhotos":  # empty until photos are added, and then refused
        del values["files"]
    if asked := checks(nodes[name]):
        assert nodes[name].validate_inputs(**{n: values[n] for n in asked if n in values}) is True


# --- help pages ---


def table(page: str, heading: str) -> dict[str, list[str]]:
    """Rows of the table under a heading, by the code name in the first column."""
    part = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert part, f"no part {heading!r}"
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in part[1].splitlines() if line.startswith("| `")
    ]
    return {row[0].strip("`"): row[1:] for row in rows}


def page_of(name: str) -> str:
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


@every_node
def test_the_help_page_names_every_input_and_output(nodes, name):
    schema, page = nodes[name].GET_SCHEMA(), page_of(name)
    assert page.startswith(f"# {schema.display_name}\n")
    assert list(table(page, "Inputs")) == [i.id for i in schema.inputs]
    assert list(table(page, "Outputs")) == [o.display_name for o in schema.outputs]
    for row in (*table(page, "Inputs").values(), *table(page, "Outputs").values()):
        assert all(row), row


@every_node
def test_the_help_page_tells_defaults_and_ranges(nodes, name):
    rows = table(page_of(name), "Inputs")
    for socket in nodes[name].GET_SCHEMA().inputs:
        told = rows[socket.id][0]
        assert ("optional" in told) == bool(socket.optional), socket.id
        if hasattr(socket, "min"):
            numbers = [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", told)]
            assert numbers[:3] == pytest.approx([socket.default, socket.min, socket.max]), f"{socket.id}: {told}"
        elif isinstance(getattr(socket, "default", None), bool):
            assert told.removeprefix("optional, ") == ("on" if socket.default else "off")
        elif getattr(socket, "default", None):
            assert f"`{socket.default}`" in told, f"{socket.id}: {told}"


@every_node
def test_the_help_page_shows_the_node(name):
    assert f"](img/{name}.webp)" in page_of(name)
    assert 0 < (PAGES / "img" / f"{name}.webp").stat().st_size < 60_000


def test_there_is_no_page_without_a_node():
    assert {path.stem for path in PAGES.glob("*.md")} == set(IDS)
