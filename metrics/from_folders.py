"""Builds the scorers from the model folders of a config."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..dpo_core.concept import Concept
from ..dpo_core.config import RemoteConfig, ScorerConfig
from .errors import MetricsError
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
    found = concept_scorers(rewards, judge_embedder, concept)
    return with_remote(found, judge.remote, concept) if judge and judge.remote else found


def with_remote(local: Scorers, remote: Sequence[RemoteConfig], concept: Concept) -> Scorers:
    """The scorers with those on other machines added, under the next free name of their axis.

    Raises MetricsError for a second judge of an axis, for two scorers that are one, and as `RemoteScorer` does.
    """
    from .remote import RemoteScorer

    rewards, judges = list(local.rewards), list(local.judges)
    for given in remote:
        taken = {scorer.name for scorer in [*rewards, *judges]}
        if given.role == "judge":
            name = f"judge_{given.axis}"
            if name in taken:
                raise MetricsError(
                    f"the scorer at {given.url} would be a second judge of {given.axis}: make it a reward, or leave "
                    "one of the judges out (scorers.judge, scorers.remote)."
                )
        else:
            name = next(n for i in range(2, 1000) if (n := f"{given.axis}_{i}") not in taken)
        more = {"batch": given.batch_size, "timeout": given.timeout, "retries": given.retries}
        (judges if given.role == "judge" else rewards).append(RemoteScorer(given.url, name, concept.references, **more))
    return Scorers(rewards, judges, local.doubts)
