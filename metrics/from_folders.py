"""Builds the scorers from the model folders of a config."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..dpo_core.concept import Concept
from ..dpo_core.config import ScorerConfig
from .sets import Scorers, concept_scorers


def clip_scorers(
    reward: Path | Sequence[Path], judge: ScorerConfig | None, concept: Concept, device: str = "cpu"
) -> Scorers:
    """Fidelity and alignment scorers by the reward models and by the judge if given, and the guards.

    The guards use the judge, else the first reward model. reward: the folder of an open_clip model, or several folders,
    of which those after the first may be DINOv2's. With `judge.augment` rewards average over views of an image; the
    judge never does. Raises MetricsError that says which file or model is wrong.
    """
    from .augmented import AugmentedEmbedder
    from .embedders import DinoV2Embedder, OpenClipEmbedder, load_embedder

    folders = [reward] if isinstance(reward, (str, Path)) else list(reward)
    rewards = [
        load_embedder(folder, device) if i else OpenClipEmbedder(folder, device=device)
        for i, folder in enumerate(folders)
    ]
    if judge and judge.augment:
        rewards = [AugmentedEmbedder(embedder) for embedder in rewards]

    judge_embedder = None
    if judge and judge.judge:
        kind = DinoV2Embedder if judge.judge_kind == "dinov2" else OpenClipEmbedder
        judge_embedder = kind(judge.judge, device=device)
    return concept_scorers(rewards, judge_embedder, concept)
