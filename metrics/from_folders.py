"""Builds the scorers from the model folders of a config."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..dpo_core.concept import Concept
from ..dpo_core.config import FacesConfig, RemoteConfig, ScorerConfig
from .errors import MetricsError
from .sets import Scorers, concept_scorers

if TYPE_CHECKING:
    from .faces import FaceScorer


def clip_scorers(
    reward: Path | Sequence[Path],
    judge: ScorerConfig | None,
    concept: Concept,
    device: str = "cpu",
    photos: Sequence[str] = (),
) -> Scorers:
    """Fidelity and alignment scorers by the reward models and by the judge if given, and the guards.

    The guards use the judge, else the first reward model. reward: the folder of an open_clip model, or several folders,
    of which those after the first may be DINOv2's. With `judge.augment` rewards average over views of an image; the
    judge never does. Fidelity is by whole pictures or by patches (`judge.fidelity`, `judge.judge_fidelity`). photos:
    file names of the reference photos, for a refusal by `judge.faces`. Raises MetricsError that says which file or
    model is wrong.
    """
    from .augmented import AugmentedEmbedder
    from .embedders import DinoV2Embedder, OpenClipEmbedder, load_embedder
    from .patches import ByPatches

    faces = face_scorer(judge.faces, concept, photos) if judge and judge.faces else None
    folders = [reward] if isinstance(reward, (str, Path)) else list(reward)
    rewards = [
        load_embedder(folder, device) if i else OpenClipEmbedder(folder, device=device)
        for i, folder in enumerate(folders)
    ]
    if judge and judge.augment:
        rewards = [AugmentedEmbedder(embedder) for embedder in rewards]
    if judge and judge.fidelity == "patches":
        rewards = [ByPatches(embedder) for embedder in rewards]

    judge_embedder = None
    if judge and judge.judge:
        kind = DinoV2Embedder if judge.judge_kind == "dinov2" else OpenClipEmbedder
        judge_embedder = kind(judge.judge, device=device)
        if judge.judge_fidelity == "patches":
            judge_embedder = ByPatches(judge_embedder)
    found = concept_scorers(rewards, judge_embedder, concept)
    if faces is not None:
        faces.name = _next_name("fidelity", {scorer.name for scorer in found.rewards})
        found = replace(found, rewards=[*found.rewards, faces])
    return with_remote(found, judge.remote, concept) if judge and judge.remote else found


def face_scorer(given: FacesConfig, concept: Concept, photos: Sequence[str]) -> FaceScorer:
    """The scorer of identity by faces, named "fidelity_2" until the others are known.

    Raises MetricsError for a class noun of no person, before a file is opened, and as `Faces` and `FaceScorer` do.
    """
    from .faces import Faces, FaceScorer, check_person

    check_person(concept.class_noun, given.person)
    faces = Faces(given.detector, given.recognizer, given.min_confidence)
    return FaceScorer(faces, concept.references, "fidelity_2", photos)


def _next_name(axis: str, taken: Collection[str]) -> str:
    """The next free name of a further reward scorer: "fidelity_2", ..."""
    return next(name for i in range(2, 1000) if (name := f"{axis}_{i}") not in taken)


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
            name = _next_name(given.axis, taken)
        more = {"batch": given.batch_size, "timeout": given.timeout, "retries": given.retries}
        (judges if given.role == "judge" else rewards).append(RemoteScorer(given.url, name, concept.references, **more))
    return Scorers(rewards, judges, local.doubts)
