"""Builds the scorers from the model folders of a config."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..dpo_core.concept import Concept
from ..dpo_core.config import FacesConfig, RemoteConfig, ScorerConfig, VlmConfig
from .errors import MetricsError
from .model_files import check_towers_folder, check_vlm_folder
from .sets import Scorers, by_questions, concept_scorers, next_name, with_quality

if TYPE_CHECKING:
    from .faces import FaceScorer
    from .torch_embedder import Embedder


def clip_scorers(
    reward: Path | Sequence[Path],
    judge: ScorerConfig | None,
    concept: Concept,
    device: str = "cpu",
    photos: Sequence[str] = (),
) -> Scorers:
    """Fidelity and alignment scorers by the reward models and by the judge if given, and the guards.

    The guards use the judge, else the first reward model. reward: the folder of an image-text model, or several
    folders, of which those after the first may be DINOv2's. With `judge.augment` rewards average over views of an
    image; the judge never does. Fidelity is by whole pictures or by patches (`judge.fidelity`,
    `judge.judge_fidelity`). photos: file names of the reference photos, for a refusal by `judge.faces`. Raises
    MetricsError that says which file or model is wrong.
    """
    from .augmented import AugmentedEmbedder
    from .embedders import load_embedder
    from .patches import ByPatches
    from .two_towers import TwoTowerEmbedder

    if judge and judge.quality:
        check_towers_folder(judge.quality.folder)
    if judge and judge.vlm:
        check_vlm_folder(judge.vlm.folder)
    faces = face_scorer(judge.faces, concept, photos) if judge and judge.faces else None
    folders = [reward] if isinstance(reward, (str, Path)) else list(reward)
    rewards = [load_embedder(folder, device) for folder in folders]
    if judge and judge.augment:
        rewards = [AugmentedEmbedder(embedder) for embedder in rewards]
    if judge and judge.fidelity == "patches":
        rewards = [ByPatches(embedder) for embedder in rewards]

    judge_embedder = _judge(judge.judge, judge.judge_kind, device) if judge and judge.judge else None
    if judge_embedder is not None and judge.judge_fidelity == "patches":
        judge_embedder = ByPatches(judge_embedder)
    quality = TwoTowerEmbedder(judge.quality.folder, device) if judge and judge.quality else None
    trained = quality is not None and judge.quality.role == "reward"
    found = concept_scorers(rewards, judge_embedder, concept, None if trained else quality)
    if trained:
        found = with_quality(found, quality, rewards, concept, trained=True)
    if judge and judge.vlm:
        found = with_vlm(found, judge.vlm, concept, device)
    if faces is not None:
        faces.name = next_name("fidelity", {scorer.name for scorer in found.rewards})
        found = replace(found, rewards=[*found.rewards, faces])
    return with_remote(found, judge.remote, concept) if judge and judge.remote else found


def _judge(folder: Path, kind: str, device: str) -> Embedder:
    """The embedder in the judge's folder. kind: see `ScorerConfig.judge_kind`."""
    from .embedders import DinoV2Embedder, OpenClipEmbedder
    from .two_towers import TwoTowerEmbedder

    return {"dinov2": DinoV2Embedder, "transformers": TwoTowerEmbedder}.get(kind, OpenClipEmbedder)(folder, device)


def face_scorer(given: FacesConfig, concept: Concept, photos: Sequence[str]) -> FaceScorer:
    """The scorer of identity by faces, named "fidelity_2" until the others are known.

    Raises MetricsError for a class noun of no person, before a file is opened, and as `Faces` and `FaceScorer` do.
    """
    from .faces import Faces, FaceScorer, check_person

    check_person(concept.class_noun, given.person)
    faces = Faces(given.detector, given.recognizer, given.min_confidence)
    return FaceScorer(faces, concept.references, "fidelity_2", photos)


def with_vlm(found: Scorers, given: VlmConfig, concept: Concept, device: str) -> Scorers:
    """The scorers with the one by questions added: as the judge of alignment in place of another, or as a reward.

    Raises MetricsError as `VisionLanguageModel` does.
    """
    from .vlm import VisionLanguageModel

    model = VisionLanguageModel(given.folder, device, given.precision, given.batch_size)
    more = {"parts": given.parts, "unit": given.unit}
    if given.role == "reward":
        name = next_name("alignment", {scorer.name for scorer in found.rewards})
        return replace(found, rewards=[*found.rewards, by_questions(model, concept, name, **more)])
    others = [scorer for scorer in found.judges if scorer.name != "judge_alignment"]
    doubts = found.doubts
    if len(others) < len(found.judges):
        doubts = (*doubts, f"{model.name} judges alignment in place of scorers.judge, which judges fidelity.")
    return replace(found, judges=[by_questions(model, concept, **more), *others], doubts=doubts)


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
            name = next_name(given.axis, taken)
        more = {"batch": given.batch_size, "timeout": given.timeout, "retries": given.retries}
        (judges if given.role == "judge" else rewards).append(RemoteScorer(given.url, name, concept.references, **more))
    return Scorers(rewards, judges, local.doubts)
