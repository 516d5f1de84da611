"""What every node owes its user and its host: names, tooltips, help pages, defaults, and a pack that opens as ComfyUI opens it."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest

from dreambooth_dpo.dpo_core.prompts import split
from dreambooth_dpo.dpo_core.settings import (
    AdapterSettings,
    EvaluationSettings,
    LoopSettings,
    PairSettings,
    PersonalizeSettings,
    SamplingSettings,
    StopSettings,
    TrainSettings,
)
from dreambooth_dpo.toybox.defaults import TOY_PERSONALIZE, TOY_SETTINGS

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "web" / "docs"
IDS = [
    "DBDPO_LoadToybox",
    "DBDPO_Concept",
    "DBDPO_PromptSet",
    "DBDPO_SampleCandidates",
    "DBDPO_LoadScorer",
    "DBDPO_Score",
    "DBDPO_BuildPairs",
    "DBDPO_PreviewPairs",
    "DBDPO_TrainStep",
    "DBDPO_Evaluate",
    "DBDPO_KeepBest",
    "DBDPO_Strength",
    "DBDPO_SaveLora",
    "DBDPO_Rounds",
]
every_node = pytest.mark.parametrize("name", IDS)
HEAVY = ("torch", "numpy", "comfy", "comfy_api", "comfy_execution", "folder_paths", "nodes", "diffusers", "transformers", "pydantic")
LONGEST = 30


# --- the pack, opened as ComfyUI opens it ---


def spec_of(name: str) -> importlib.machinery.ModuleSpec:
    spec = importlib.util.spec_from_file_location(name, ROOT / "__init__.py")
    assert spec is not None and spec.loader is not None
    return spec


@pytest.fixture(scope="module")
def pack(comfyui: Path) -> Iterator[ModuleType]:
    """The pack under ComfyUI's module name for it: its path, which is no package's."""
    name = str(ROOT).replace(".", "_x_")
    spec = spec_of(name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    yield module
    for other in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
        del sys.modules[other]


@pytest.fixture(scope="module")
def extension(pack: ModuleType):
    return asyncio.run(pack.comfy_entrypoint())


@pytest.fixture(scope="module")
def nodes(extension) -> dict[str, type]:
    """Node classes by id, in the pack's order."""
    return {node.GET_SCHEMA().node_id: node for node in asyncio.run(extension.get_node_list())}


def test_the_pack_opens_with_all_its_nodes(pack, extension, nodes):
    from comfy_api.latest import ComfyExtension

    assert isinstance(extension, ComfyExtension)
    assert list(nodes) == IDS
    assert not hasattr(pack, "NODE_CLASS_MAPPINGS"), "with it, ComfyUI would pass over comfy_entrypoint"
    assert (ROOT / pack.WEB_DIRECTORY).is_dir()


def test_nodes_stay_inside_the_pack(pack, nodes):
    """Relative imports alone: not the installed package, and not ComfyUI's own `nodes`."""
    assert all(node.__module__.startswith(f"{pack.__name__}.nodes.") for node in nodes.values())


def test_importing_the_root_has_no_side_effects(comfyui: Path, tmp_path: Path):
    """Even where ComfyUI's modules could be imported."""
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
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", check=False)
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
        if socket.optional:
            assert taken[socket.id].default is None, f"execute() cannot do without {socket.id}, which is optional"
    assert {n for n, p in taken.items() if p.kind is not inspect.Parameter.VAR_KEYWORD} <= set(inputs)


def checks(node: type) -> list[str]:
    """The inputs that the node's own validation asks for."""
    own = next((c.__dict__["validate_inputs"] for c in node.__mro__ if "validate_inputs" in c.__dict__), None)
    if own is None or not own.__func__.__module__.startswith(node.__module__):
        return []
    return [p for p in inspect.signature(node.validate_inputs).parameters]


@pytest.mark.parametrize("name", IDS)
def test_linked_values_are_not_refused_before_they_are_known(nodes, name):
    """ComfyUI validates before anything runs: an input that comes from another node is None then."""
    asked = checks(nodes[name])
    assert set(asked) <= {i.id for i in nodes[name].GET_SCHEMA().inputs}
    for linked in asked:
        assert nodes[name].validate_inputs(**{linked: None}) is True, linked


@every_node
def test_defaults_pass_the_nodes_own_validation(nodes, name):
    values = {w.id: w.default for w in widgets(nodes[name])}
    if name == "DBDPO_LoadScorer":
        values["scorer"] = "toybox reward"
    if asked := checks(nodes[name]):
        assert nodes[name].validate_inputs(**{n: values[n] for n in asked}) is True


def widgets(node: type) -> list:
    """Inputs that a user sets on the node itself."""
    return [i for i in node.GET_SCHEMA().inputs if hasattr(i, "default")]


# --- help pages ---


def table(page: str, heading: str) -> dict[str, list[str]]:
    """The rows of the table under a heading, by the name in the first column, which is set as code."""
    part = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert part, f"no part {heading!r}"
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in part[1].splitlines() if line.startswith("| `")]
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


def test_there_is_no_page_without_a_node():
    assert {path.stem for path in PAGES.glob("*.md")} == set(IDS)


# --- the same names, defaults and ranges as the engine ---

SAMPLING = {
    "candidates_per_prompt": (SamplingSettings, "candidates_per_prompt"),
    "seed": (SamplingSettings, "seed"),
    "steps": (SamplingSettings, "steps"),
    "cfg": (SamplingSettings, "guidance"),
    "width": (SamplingSettings, "width"),
    "height": (SamplingSettings, "height"),
    "batch_size": (SamplingSettings, "batch_size"),
}
LIMITS = ("angle_low", "angle_high", "margin", "max_pairs_per_prompt", "max_uses")
PAIRS = {n: (PairSettings, n) for n in (*LIMITS, "rule", "window", "steer", "fidelity_weight", "combine")}
TRAINING = {
    "rank": (AdapterSettings, "rank"),
    "alpha": (AdapterSettings, "alpha"),
    "targets": (AdapterSettings, "targets"),
    "train_steps": (TrainSettings, "steps"),
    "pairs_per_step": (TrainSettings, "batch_size"),
    "accumulation": (TrainSettings, "accumulation"),
    "learning_rate": (TrainSettings, "learning_rate"),
    "beta": (TrainSettings, "beta"),
    "checkpointing": (TrainSettings, "gradient_checkpointing"),
    "objective": (TrainSettings, "objective"),
    "loser_guard": (TrainSettings, "loser_guard"),
    "schedule": (TrainSettings, "schedule"),
}
MEASURING = {"seeds_per_prompt": (EvaluationSettings, "seeds_per_prompt"), "seed": (EvaluationSettings, "seed")}
MEANINGS = {
    "DBDPO_LoadToybox": {"steps": (PersonalizeSettings, "steps")},
    "DBDPO_SampleCandidates": SAMPLING,
    "DBDPO_BuildPairs": PAIRS,
    "DBDPO_TrainStep": TRAINING,
    "DBDPO_Evaluate": MEASURING,
    "DBDPO_Strength": {"seed": (EvaluationSettings, "seed"), "seeds_per_prompt": (EvaluationSettings, "seeds_per_prompt")},
    "DBDPO_KeepBest": {**MEASURING, "patience": (StopSettings, "patience")},
    "DBDPO_Rounds": {
        "rounds": (LoopSettings, "rounds"),
        **SAMPLING,
        **PAIRS,
        **TRAINING,
        "seeds_per_prompt": MEASURING["seeds_per_prompt"],
    },
}
MEANT = [(node, widget) for node, names in MEANINGS.items() for widget in names]
KSAMPLER_STEPS = 20
DIFFERENT = {
    ("DBDPO_LoadToybox", "steps"): TOY_PERSONALIZE.steps,
    ("DBDPO_SampleCandidates", "steps"): KSAMPLER_STEPS,
    ("DBDPO_Rounds", "steps"): KSAMPLER_STEPS,
    ("DBDPO_TrainStep", "loser_guard"): 0,
    ("DBDPO_Rounds", "loser_guard"): 0,
    **{
        (node, name): getattr(TOY_SETTINGS.pairs, name)
        for node in ("DBDPO_BuildPairs", "DBDPO_Rounds")
        for name in ("max_pairs_per_prompt", "max_uses")
    },
}
"""Defaults that differ from the engine's on purpose: the toybox is personalized as in its own settings; steps are those of ComfyUI's
KSampler, since samplers and schedules are ComfyUI's; a number cannot be empty, so 0 turns the loser guard off; pairs per prompt and
uses are those that the loop was measured with on the toybox."""


def widget_of(nodes: dict[str, type], node: str, name: str):
    return next(w for w in widgets(nodes[node]) if w.id == name)


@pytest.mark.parametrize(("node", "name"), MEANT)
def test_defaults_are_the_engines(nodes, node, name):
    kind, field = MEANINGS[node][name]
    engines, widgets_own = kind.model_fields[field].default, widget_of(nodes, node, name).default
    if (node, name) in DIFFERENT:
        assert widgets_own == DIFFERENT[node, name] != engines
    else:
        assert widgets_own == engines


@pytest.mark.parametrize(("node", "name"), MEANT)
def test_the_engine_takes_all_that_a_widget_offers(nodes, node, name):
    kind, field = MEANINGS[node][name]
    described, widget = kind.model_fields[field], widget_of(nodes, node, name)
    if getattr(widget, "options", None) is not None:
        assert set(widget.options) == set(get_args(described.annotation))
    for limit in described.metadata:
        assert widget.min >= getattr(limit, "ge", widget.min) and widget.max <= getattr(limit, "le", widget.max)
        assert not hasattr(limit, "gt") or widget.min > limit.gt
        assert not hasattr(limit, "lt") or widget.max < limit.lt
        assert not hasattr(limit, "multiple_of") or widget.step == limit.multiple_of


def test_other_defaults_that_mean_the_same(nodes):
    from nodes import KSampler

    assert KSampler.INPUT_TYPES()["required"]["steps"][1]["default"] == KSAMPLER_STEPS
    assert widget_of(nodes, "DBDPO_PromptSet", "held_out_share").default == inspect.signature(split).parameters["held_out_share"].default


def test_the_strengths_are_the_engines(nodes):
    from dreambooth_dpo.dpo_core.settings import StrengthSettings
    from dreambooth_dpo.dpo_core.strength import read_strengths

    assert read_strengths(widget_of(nodes, "DBDPO_Strength", "strengths").default) == StrengthSettings().strengths


def test_rounds_offers_the_widgets_of_its_parts(nodes):
    """Same defaults, ranges and tooltips as the nodes that it stands for."""
    whole = {w.id: w.as_dict() for w in widgets(nodes["DBDPO_Rounds"])}
    for part in ("DBDPO_SampleCandidates", "DBDPO_BuildPairs", "DBDPO_TrainStep"):
        for widget in widgets(nodes[part]):
            assert whole.pop(widget.id) == widget.as_dict(), f"{part}.{widget.id}"
    assert list(whole) == ["rounds", "keep", "seeds_per_prompt"]
