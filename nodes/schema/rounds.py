"""DPO Rounds: the whole loop, expanded into the nodes that a user would connect by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from comfy_api.latest import io

from ...dpo_core.settings import (
    AdapterSettings,
    LoopSettings,
    OwnPairSettings,
    PairSettings,
    SamplingSettings,
    StopSettings,
    TrainSettings,
)
from ..sockets import AUTO, CATEGORY, NONE, CandidatesType, ConceptType, PromptsType, ScorerType, found_by
from ..widgets import advanced, ordered, used_with, widget
from .finish import FinishCandidates
from .inputs import judge_input, quality_input, seeds_input
from .keep_best import KeepBest
from .own_pairs import OwnPairs
from .pairs import PAIRING, BuildPairs
from .sample import DRAWING, SampleCandidates, candidate_lora_inputs, sampler_inputs, sampling_inputs
from .score import second_scorer
from .train import LEARNING, TrainStep, adapter_inputs, training_inputs

_LINKED = {"rawLink": True}
_ORDER = (
    "rounds", "run_name", *DRAWING, *PAIRING, *LEARNING, "combine", "keep", "seeds_per_prompt", "memory",
    "reference_bank", "guidance_until", "draft_steps",
)  # fmt: skip
"""Widgets in the order of saved graphs."""


def _scorers(first: Any, second: Any) -> dict[str, Any]:
    """The links of one or two scorers as inputs of Score Fidelity/Alignment."""
    return {"scorer": first} if second is None else {"scorer": first, "scorer_2": second}


def _given(inputs: list[io.Input], widgets: dict[str, Any]) -> dict[str, Any]:
    """The values of those loop widgets that are among a node's inputs.

    Widgets that the graph lacks are left out: one more value would change the key of the host's cache.
    """
    return {i.id: widgets[i.id] for i in inputs if hasattr(i, "default") and widgets.get(i.id) is not None}


def _later(number: int) -> dict[str, int]:
    """The round input of a later round; empty for round 0, so that it equals a graph from before the input."""
    return {"round": number} if number else {}


def _measuring(judge: Any, quality: Any, seeds_per_prompt: int | None) -> dict[str, Any]:
    """Widget values, judge and quality guard of the Keep Best Round of every round."""
    defaults = {i.id: i.default for i in KeepBest.define_schema().inputs if hasattr(i, "default")}
    linked = {name: link for name, link in (("judge", judge), ("quality", quality)) if link is not None}
    return {**defaults, **({"seeds_per_prompt": seeds_per_prompt} if seeds_per_prompt is not None else {}), **linked}


@dataclass(frozen=True)
class _Drawn:
    """Nodes of a round before training: the source of its candidates, its pairs, and its draft pairs if any."""

    candidates: Any
    pairs: Any
    drafts: Any = None


def _drawn(
    graph: Any,
    number: int,
    links: dict[str, Any],
    drawing: dict[str, Any],
    scorers: dict[str, Any],
    pairing: dict[str, Any],
    drafts: int,
    own: dict[str, Any],
    before: _Drawn | None,
) -> _Drawn:
    """Add the nodes that sample, score and pair the candidates of a round.

    drafts: sampler steps of the drafts, 0 for none. With drafts, those in pairs are finished, scored and paired again.
    own: inputs of the node that adds a person's pairs; empty for none. before: nodes of the round before.
    """
    steps = drawing["steps"]
    drawing = {**drawing, **_later(number), "steps": drafts or steps, **_earlier(drawing, before)}
    if "earlier" not in drawing:
        drawing.pop("earlier_rounds", None)  # a round without earlier candidates equals one from before the widget

    def paired(source: Any, stem: str) -> Any:
        scored = graph.node("DBDPO_Score", f"{stem}score_{number}", candidates=source.out(0), **scorers)
        return graph.node(BuildPairs.define_schema().node_id, f"{stem}pairs_{number}", scored=scored.out(0), **pairing)

    sample = graph.node(SampleCandidates.define_schema().node_id, f"sample_{number}", **links, **drawing)
    pairs = paired(sample, "")
    if not drafts:
        return _Drawn(sample, _with_own(graph, number, pairs, own))
    model = {name: links[name] for name in ("model", "clip", "vae")}
    finish = graph.node(
        FinishCandidates.define_schema().node_id, f"finish_{number}", pairs=pairs.out(0), steps=steps, **model
    )
    return _Drawn(finish, _with_own(graph, number, paired(finish, "finished_"), own), pairs)


def _earlier(drawing: dict[str, Any], before: _Drawn | None) -> dict[str, Any]:
    """The link to the candidates of the round before, where they are used again."""
    return {"earlier": before.candidates.out(0)} if before is not None and drawing.get("earlier_rounds") else {}


def _with_own(graph: Any, number: int, pairs: Any, own: dict[str, Any]) -> Any:
    """The node of a round's pairs, or one after it that adds a person's own."""
    return graph.node(OwnPairs.define_schema().node_id, f"own_{number}", pairs=pairs.out(0), **own) if own else pairs


def _own(widgets: dict[str, Any], links: dict[str, Any]) -> dict[str, Any]:
    """Inputs of the node that adds a person's pairs, by the loop's widgets; empty without a source."""
    given = {name: widgets.get(f"own_{name}") for name in ("prompt", "weight")}
    more = {name: value for name, value in given.items() if value is not None}
    return {**links, "source": widgets["own_pairs"], **more} if widgets.get("own_pairs") else {}


def _own_inputs() -> list[io.Input]:
    """Widgets of a person's own pairs, as those of Add Own Pairs."""
    source = io.String.Input(
        "own_pairs",
        default="",
        optional=True,
        tooltip="Your own pairs for every round: a folder in ComfyUI's input folder that holds winner and loser, or a "
        ".csv file there, as for Add Own Pairs. Empty: none.",
    )
    prompt = io.String.Input(
        "own_prompt", default="", optional=True, tooltip="The prompt of own pairs that have none of their own."
    )
    weight = widget(OwnPairSettings, "weight", named="own_weight", optional=True)
    return [advanced(source), *(used_with(advanced(i), own_pairs=["?*"]) for i in (prompt, weight))]


def _keep_best(graph: Any, number: int, drawn: _Drawn, train: Any, earlier: Any, parts: dict[str, Any]) -> Any:
    """Add the Keep Best Round node of a round.

    Inputs are lazy: after an early stop nothing upstream runs; without pairs training is skipped.
    """
    so_far = {} if earlier is None else {"so_far": earlier.out(2), "pairs": drawn.pairs.out(0)}
    if so_far and drawn.drafts is not None:
        so_far["drafts"] = drawn.drafts.out(0)
    links = {"after": train.out(0), "lora": train.out(1), "candidates": drawn.candidates.out(0), **so_far}
    return graph.node(KeepBest.define_schema().node_id, f"keep_{number}", **links, **parts)


def _outputs(rounds: int, drawn: _Drawn, train: Any, kept: Any) -> tuple:
    """The sources of the outputs.

    With a Keep Best Round node none is the last round's own node: that would make the round run after an early stop.
    """
    if kept is not None:
        return tuple(kept.out(i) for i in (0, 1, 6, 5, 3, 4))
    said = (
        f"The last of {rounds} rounds is kept without measuring (keep = last). "
        "Connect Evaluate Before/After to see whether it is better."
    )
    return (train.out(0), train.out(1), train.out(2), drawn.candidates.out(0), train.out(2), said)


def rounds_inputs() -> list[io.Input]:
    """Widgets of the loop: those of the nodes in it, each once."""
    beside = [
        io.String.Input(
            "run_name",
            default="my_run",
            tooltip="Name of the run's folder under output/dreambooth_dpo, where all results are saved.",
        ),
        *sampler_inputs(),
        *adapter_inputs(),
        widget(StopSettings, "rule"),
        advanced(seeds_input(optional=True)),
    ]
    kinds = (LoopSettings, SamplingSettings, PairSettings, AdapterSettings, TrainSettings)
    return ordered(*kinds, beside=beside, order=_ORDER, younger=[*_own_inputs(), *candidate_lora_inputs()], since=11)


class Rounds(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DBDPO_Rounds",
            display_name="DPO Rounds",
            category=CATEGORY,
            description="Samples, scores, pairs and trains for several rounds, each on new candidates of the model "
            "so far.",
            **found_by("diffusion dpo", "loop", "train lora", "preference training"),
            inputs=[
                # rawLink passes the links on, not their values: with more rounds, the earlier ones are still cached.
                io.Model.Input("model", extra_dict=_LINKED, tooltip="The personalized model."),
                io.Clip.Input("clip", extra_dict=_LINKED, tooltip="Its text encoder."),
                io.Vae.Input("vae", extra_dict=_LINKED, tooltip="Its VAE."),
                ConceptType.Input("concept", extra_dict=_LINKED, tooltip="The subject."),
                PromptsType.Input(
                    "prompts", extra_dict=_LINKED, tooltip="The training prompts and the held-out prompts."
                ),
                ScorerType.Input("scorer", extra_dict=_LINKED, tooltip="The reward scorer: its scores make the pairs."),
                second_scorer(extra_dict=_LINKED),
                judge_input(
                    "is not used in training: its gain counts half in the choice of the best round.", extra_dict=_LINKED
                ),
                quality_input(extra_dict=_LINKED),
                *rounds_inputs(),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model", tooltip="The model after the round that is kept, or the original model."
                ),
                io.LoraModel.Output(
                    display_name="lora",
                    tooltip="One LoRA with all rounds up to the one that is kept, for Save DPO LoRA.",
                ),
                io.Image.Output(display_name="curves", tooltip="Training curves of the last round that ran."),
                CandidatesType.Output(
                    display_name="candidates",
                    tooltip="Candidates of the last round that ran, for Evaluate Before/After.",
                ),
                io.Image.Output(
                    display_name="watch", tooltip="Gain of each round with its interval. A star marks what is kept."
                ),
                io.String.Output(
                    display_name="report", tooltip="Which round is kept and why, then the scores of each round."
                ),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
            enable_expand=True,
        )

    @classmethod
    def execute(
        cls, model, clip, vae, concept, prompts, scorer, rounds, run_name, scorer_2=None, judge=None, quality=None,
        **widgets,
    ) -> io.NodeOutput:  # fmt: skip
        from comfy_execution.graph_utils import GraphBuilder

        from ..host.rounds_run import begin

        begin(cls.hidden, run_name, rounds, widgets)
        graph = GraphBuilder()
        drawing, training = _given(sampling_inputs(), widgets), _given(training_inputs(), widgets)
        pairing = _given(BuildPairs.define_schema().inputs, widgets)
        scorers, kept = _scorers(scorer, scorer_2), None
        measured = _measuring(judge, quality, widgets.get("seeds_per_prompt"))
        measuring = {"before": model, "clip": clip, "vae": vae, **scorers, **measured}
        shared = {"clip": clip, "vae": vae, "concept": concept, "prompts": prompts, "run_name": run_name}
        drafts, own = widgets.get("draft_steps") or 0, _own(widgets, {"model": model, "vae": vae})
        drawn = None
        for number in range(rounds):
            drawn = _drawn(graph, number, {"model": model, **shared}, drawing, scorers, pairing, drafts, own, drawn)
            steps = {**training, **_later(number)}
            links = {"model": model, "clip": clip, "pairs": drawn.pairs.out(0)}
            train = graph.node(TrainStep.define_schema().node_id, f"train_{number}", **links, **steps)
            model = train.out(0)
            kept = None if widgets.get("keep") == "last" else _keep_best(graph, number, drawn, train, kept, measuring)
        return io.NodeOutput(*_outputs(rounds, drawn, train, kept), expand=graph.finalize())

    @classmethod
    def validate_inputs(
        cls,
        run_name: str = "x",
        angle_low: float = 0,
        angle_high: float = 1,
        steps: int = 20,
        draft_steps: int = 0,
        sampler_name: str = "euler",
        own_pairs: str = "",
        candidate_lora: str = NONE,
        candidate_steps: int = 0,
        earlier_rounds: int = 0,
    ) -> bool | str:
        wrong = SampleCandidates.validate_inputs(run_name, candidate_lora, candidate_steps)
        if wrong is True and draft_steps:
            from ..stages.finish import beside_drafts

            wrong = beside_drafts(draft_steps, candidate_steps, earlier_rounds) or True
        if wrong is True and own_pairs:
            wrong = OwnPairs.validate_inputs(own_pairs)
        # Values that are auto (0 steps, sampler "auto") are known when the model is: Finish Candidates checks them.
        if wrong is True and draft_steps and steps and sampler_name not in (None, AUTO):
            from ..stages.finish import drafts_refused

            wrong = drafts_refused(draft_steps, steps, sampler_name) or True
        return wrong if wrong is not True else BuildPairs.validate_inputs(angle_low, angle_high)

    @classmethod
    def fingerprint_inputs(
        cls, run_name: str = "", own_pairs: str | None = "", candidate_lora: str = NONE, **_
    ) -> tuple | list:
        of_run = SampleCandidates.fingerprint_inputs(run_name, candidate_lora)
        return [of_run, OwnPairs.fingerprint_inputs(own_pairs)] if own_pairs else of_run


NODES = [Rounds]
