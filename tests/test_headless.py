"""Tests the parts built from a config: what is checked, reused and refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from models import tiny_text_to_image
from PIL import Image
from projects import config_of, make_project
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dreambooth_dpo.dpo_core.concept import Concept
from dreambooth_dpo.dpo_core.config import ScorerConfig
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.settings import AdapterSettings
from dreambooth_dpo.dpo_core.training.adapter import Adapter
from dreambooth_dpo.dpo_core.training.lora_files import save_lora
from dreambooth_dpo.headless import (
    config_concept,
    config_prompts,
    evaluate_lora,
    loop_from_config,
    parts_from_config,
    pick_device,
    run_loop,
)
from dreambooth_dpo.metrics.embedders import OpenClipEmbedder
from dreambooth_dpo.metrics.errors import MetricsError
from dreambooth_dpo.metrics.from_folders import clip_scorers
from dreambooth_dpo.metrics.patches import PatchFidelityScorer
from dreambooth_dpo.metrics.scorers import FidelityScorer
from dreambooth_dpo.toybox.models import weights_folder


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("headless") / "prøjekt"
    make_project(folder)
    return folder


@pytest.fixture
def concept() -> Concept:
    photos = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    return Concept("sks", "robot", photos, photos[:2])


# --- the parts ---


def test_devices() -> None:
    assert pick_device("cpu") == "cpu" and pick_device("auto") in ("cpu", "cuda", "mps")
    with pytest.raises(UserError, match=r"device 'gpu0' is unknown\. Use auto"):
        pick_device("gpu0")
    with pytest.raises(UserError, match="device 'cuda:99' is not available: this torch sees"):
        pick_device("cuda:99")


PATCHES = {"fidelity": "patches"}


def test_scorers_of_reward_and_judge(concept: Concept) -> None:
    judge = ScorerConfig(reward=weights_folder("reward"), judge=weights_folder("judge"))
    both = clip_scorers(weights_folder("reward"), judge, concept)
    assert [s.name for s in both.rewards] == ["fidelity", "alignment"]
    assert [s.name for s in both.judges] == [
        "judge_fidelity", "judge_alignment", "copy_paste", "diversity", "saturation",
    ]  # fmt: skip
    bare = clip_scorers(weights_folder("reward"), None, Concept("sks", "robot", concept.references))
    assert [s.name for s in bare.judges] == ["diversity", "saturation"]
    assert len({s.fingerprint for s in [*both.rewards, *both.judges]}) == 7
    depends = [s.fingerprint for s in [*both.rewards, *both.judges] if s.name != "saturation"]
    assert both.fingerprints == depends, "a run that began before there was this guard goes on"


def test_augment_applies_to_the_reward_only(concept: Concept) -> None:
    config = ScorerConfig(reward=weights_folder("reward"), judge=weights_folder("judge"))
    plain, augmented = (
        clip_scorers(c.reward, c, concept) for c in (config, config.model_copy(update={"augment": True}))
    )
    assert [a.fingerprint == b.fingerprint for a, b in zip(plain.rewards, augmented.rewards, strict=True)] == [
        False,
        False,
    ]
    assert [a.fingerprint for a in plain.judges] == [b.fingerprint for b in augmented.judges]


def test_fidelity_by_patches_is_chosen_for_rewards_and_judge_apart(concept: Concept) -> None:
    """Whole pictures unless chosen, with the fingerprint that run folders hold; alignment stays as it is."""
    config = ScorerConfig(reward=weights_folder("reward"))
    embedder = OpenClipEmbedder(weights_folder("reward"))
    plain, patches = (clip_scorers(c.reward, c, concept) for c in (config, config.model_copy(update=PATCHES)))
    assert plain.rewards[0].fingerprint == FidelityScorer(embedder, concept.references).fingerprint
    assert patches.rewards[0].fingerprint == PatchFidelityScorer(embedder, concept.references).fingerprint
    assert patches.rewards[1].fingerprint == plain.rewards[1].fingerprint
    scores = patches.rewards[0].score(concept.references, [""] * len(concept.references))
    assert np.isfinite(scores).all() and scores.shape == (len(concept.references),)
    wrong = config.model_copy(update={"judge": weights_folder("judge"), "judge_fidelity": "patches"})
    with pytest.raises(MetricsError, match="has no patches"):
        clip_scorers(wrong.reward, wrong, concept)


def test_run_with_two_rewards_reports_a_row_for_each(project: Path) -> None:
    both = [str(weights_folder(name)) for name in ("reward", "judge")]
    scorers = {"reward": both, "augment": True}
    config = config_of(
        project,
        output="zwei",
        scorers=scorers,
        pairs={"angle_low": -90.0, "angle_high": 180.0, "margin": 0.0, "combine": "worst"},
    )
    loop = loop_from_config(config, resume=False)
    assert loop.axes == [("fidelity", "fidelity_2"), ("alignment", "alignment_2")]
    _, report = run_loop(loop)
    about = loop.run.fact("scorers")
    assert about["alignment_2"] == {"role": "reward", "title": "Alignment (2nd scorer)", "higher_is_better": True}
    assert {"before", "after", "gain"} <= report["fidelity_2"].keys() and report["fidelity_2"] != report["fidelity"]
    page = (loop.run.path / "report" / "report.html").read_text(encoding="utf-8")
    assert (
        "Fidelity (2nd scorer)" in page and "several scorers of an axis as their worst in standard deviations" in page
    )
    with pytest.raises(MetricsError, match="is given twice as a reward"):
        parts_from_config(config_of(project, scorers__reward=[both[0], both[0]]))


def test_alignment_fingerprint_depends_on_the_identifier(concept: Concept) -> None:
    marks = [
        clip_scorers(weights_folder("reward"), None, Concept(name, "robot", concept.references)).rewards[1].fingerprint
        for name in ("sks", "zwx")
    ]
    assert marks[0] != marks[1]


def test_missing_scorer_folder_message_says_where_to_put_it(concept: Concept, tmp_path: Path) -> None:
    with pytest.raises(MetricsError, match=r"nowhere does not exist.*Put an open_clip model there"):
        clip_scorers(tmp_path / "nowhere", None, concept)


def write_masks(project: Path) -> Path:
    """A mask for every reference photo: its right half is white."""
    folder = project / "masken ß"
    folder.mkdir(exist_ok=True)
    for photo in (project / "fotos ü").iterdir():
        with Image.open(photo) as picture:
            mask = Image.new("L", picture.size)
        mask.paste(255, (mask.width // 2, 0, mask.width, mask.height))
        mask.save(folder / photo.name)
    return folder


def test_masks_restrict_fidelity_to_the_subject(project: Path) -> None:
    """For reward and judge; alignment and other guards are unchanged, and a run without masks is another run."""
    with_masks, without = config_of(project, concept__masks=write_masks(project).name), config_of(project)
    concept, plain = config_concept(with_masks), config_concept(without)
    assert (
        concept.masks.shape == (3, 64, 64)
        and (concept.masks[:, :, 40:] == 255).all()
        and (concept.masks[:, :, :24] == 0).all()
    )
    assert plain.masks is None and np.array_equal(concept.references, plain.references)

    pairs = {}
    parts = [parts_from_config(config) for config in (with_masks, without)]
    for scorers in (p.scorers for p in parts):
        for scorer in [*scorers.rewards, *scorers.judges]:
            pairs.setdefault(scorer.name, []).append(scorer)
    assert len(pairs.pop("judge_background")) == 1  # the guard against the photos' place needs masks
    assert {name for name, (a, b) in pairs.items() if a.fingerprint != b.fingerprint} == {"fidelity", "judge_fidelity"}
    for name, role in (("fidelity", "reward"), ("judge_fidelity", "judge")):
        embedder = OpenClipEmbedder(weights_folder(role))
        expected = FidelityScorer(embedder, concept.references, masks=concept.masks).score(concept.held_out, ["", ""])
        scores = [s.score(concept.held_out, ["", ""]) for s in pairs[name]]
        np.testing.assert_array_equal(scores[0], expected)
        assert np.abs(scores[0] - scores[1]).max() > 1e-3
    assert parts[0].described()["scorers"] != parts[1].described()["scorers"]


def test_wrong_masks_are_refused_before_anything_is_made(project: Path) -> None:
    folder = project / "zu wenige"
    folder.mkdir()
    Image.new("L", (100, 80), 255).save(folder / "größe 0.png")
    with pytest.raises(UserError, match=r"größe 1\.png has no mask"):
        loop_from_config(config_of(project, output="ohne", concept__masks="zu wenige"), resume=False)
    assert not (project / "ohne").exists()


def test_prompts_are_split_unless_held_out_prompts_are_given(project: Path, concept: Concept) -> None:
    split = config_prompts(config_of(project), concept)
    assert len(split.train) == len(split.held_out) == 2
    assert (
        {("sand" in p, "café" in p) for p in split.train}
        == {("sand" in p, "café" in p) for p in split.held_out}
        == {(True, False), (False, True)}
    )
    (project / "held out.txt").write_text("a {identifier} {class_noun} at sea\n", encoding="utf-8")
    given = config_prompts(config_of(project, held_out_prompts="held out.txt"), concept)
    assert given.held_out == ("a sks robot at sea",) and len(given.train) == 4


def test_opening_a_loop_samples_nothing(project: Path) -> None:
    loop = loop_from_config(config_of(project, output="geöffnet"), resume=False)
    assert loop.run.candidates("evaluation_0") == []
    assert loop.run.fact("concept") == {"identifier": "sks", "class_noun": "robot", "name": "sks robot"}
    assert {n: s["role"] for n, s in loop.run.fact("scorers").items()} == {
        "fidelity": "reward", "alignment": "reward", "judge_fidelity": "judge", "judge_alignment": "judge",
        "copy_paste": "guard", "diversity": "guard", "saturation": "guard",
    }  # fmt: skip
    assert len(list((loop.run.path / "references").glob("*.png"))) == loop.run.fact("references") == 3


def test_run_that_fails_to_open_creates_no_folder(project: Path) -> None:
    with pytest.raises(UserError, match="identifier"):
        loop_from_config(config_of(project, output="leer", concept__identifier="  "), resume=False)
    assert not (project / "leer").exists()


# --- measuring a LoRA ---


def trained_lora(project: Path, name: str, seed: int = 0, **channels: object) -> Path:
    """A LoRA with random weights in the format that `run` writes."""
    from dreambooth_dpo.dpo_core.backends.diffusers.model import load_pipeline

    unet = load_pipeline(project / "modèle").unet
    adapter = Adapter(unet, AdapterSettings(rank=2, alpha=2.0, **channels), seed=seed)
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in adapter.parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=draws))
    path = project / f"{name}.safetensors"
    save_lora(adapter, path, {})
    return path


def test_a_lora_is_measured_against_the_model_without_it(project: Path) -> None:
    config, lora = config_of(project, output="gemessen"), trained_lora(project, "eine")
    report = evaluate_lora(config, lora, resume=False)
    loop = loop_from_config(config_of(project, output="vergleich"), resume=False)
    loop.evaluate(0)
    measured = RunFolder(config.output)
    assert torch.equal(measured.latents("evaluation_0"), loop.run.latents("evaluation_0"))
    assert not torch.equal(measured.latents("evaluation_1"), loop.run.latents("evaluation_0"))
    assert report["rounds"] == 1 and {"before", "after", "gain", "ci95"} <= report["fidelity"].keys()

    other = trained_lora(project, "andere", seed=1)
    with pytest.raises(UserError, match=r"holds a run with other settings: lora was"):
        evaluate_lora(config, other, resume=True)
    assert evaluate_lora(config, lora, resume=True)["fidelity"] == report["fidelity"]


def test_candidates_are_drawn_with_a_lora_of_their_own(project: Path) -> None:
    few = trained_lora(project, "schnell", seed=2)
    given = {"model__candidate_lora": few.name, "sampling__candidate_steps": 3}
    config = config_of(project, output="wenige Schritte", rounds=1, **given)
    loop, plain = (
        loop_from_config(c, resume=False)
        for c in (config, config_of(project, output="alle Schritte", rounds=1, sampling__candidate_steps=3))
    )
    for one in (loop, plain):
        one.begin(0)
        one.evaluate(0)
        one.candidates(0)
    assert torch.equal(loop.run.latents("evaluation_0"), plain.run.latents("evaluation_0"))
    assert not torch.equal(loop.run.latents("round_0"), plain.run.latents("round_0"))
    loop.run.close()
    trained_lora(project, "schnell", seed=3)
    with pytest.raises(UserError, match="holds a run with other settings: candidate_lora was"):
        loop_from_config(config, resume=True)
    loop_from_config(config_of(project, output="unberührt", sampling__candidate_steps=3), resume=False).run.close()
    with pytest.raises(UserError, match="model.quantize .torchao-int8. does not allow"):
        loop_from_config(config_of(project, output="nie", **given, model__quantize="torchao-int8"), resume=False)
    with pytest.raises(UserError, match=r"candidate_steps is 0.*set candidate_steps"):
        config_of(project, output="nie", model__candidate_lora=few.name)


def test_lora_that_does_not_fit_is_refused_before_sampling(project: Path) -> None:
    config = config_of(project, output="nie")
    tensors = load_file(trained_lora(project, "ganz"))
    foreign = {key.replace("mid_block", "mid_block_9"): value for key, value in tensors.items()}
    save_file(foreign, project / "fremd.safetensors")
    with pytest.raises(UserError, match=r"fremd\.safetensors does not fit this model: .*not there: lora_unet_mid_bl"):
        evaluate_lora(config, project / "fremd.safetensors", resume=False)
    with pytest.raises(UserError, match=r"fehlt\.safetensors does not exist"):
        evaluate_lora(config, project / "fehlt.safetensors", resume=False)
    assert not config.output.exists()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_lora_of_another_tool_is_measured_as_model_lora_would_be(project: Path, precision: str) -> None:
    """diffusers' keys, alpha 3 in the header, two layers of rank 4: merged, with strength 1."""
    layers = [f"down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_{x}" for x in "qk"]
    draws = torch.Generator().manual_seed(0)
    tensors = {f"unet.{n}.lora_A.weight": torch.randn(4, 64, generator=draws) for n in layers}
    tensors |= {f"unet.{n}.lora_B.weight": torch.randn(64, 4, generator=draws) for n in layers}
    said = {"lora_adapter_metadata": json.dumps({"unet.r": 4, "unet.lora_alpha": 3})}
    lora = project / "andere" / "pytorch_lora_weights.safetensors"
    lora.parent.mkdir(exist_ok=True)
    save_file(tensors, lora, metadata=said)
    config = config_of(project, output=f"fremd {precision}", train__precision=precision)
    report = evaluate_lora(config, lora.parent, resume=False)
    assert report["rounds"] == 1 and {"before", "after", "gain"} <= report["fidelity"].keys()

    inside = config_of(project, output=f"innen {precision}", train__precision=precision, model__lora=str(lora))
    loop = loop_from_config(inside, resume=False)
    loop.evaluate(0)
    measured = RunFolder(config.output)
    assert torch.equal(measured.latents("evaluation_1"), loop.run.latents("evaluation_0"))
    assert not torch.equal(measured.latents("evaluation_0"), loop.run.latents("evaluation_0"))
    assert evaluate_lora(config, lora, resume=True)["fidelity"] == report["fidelity"]


# --- resuming after a change of the model's folder ---


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        (
            "scheduler/scheduler_config.json",
            lambda c: {**c, "timestep_spacing": "trailing"},
            r"model_parts\.scheduler\.timestep_spacing was 'linspace', is 'trailing'",
        ),
        (
            "tokenizer/tokenizer_config.json",
            lambda c: {**c, "model_max_length": 20},
            r"model_parts\.tokenizer\.longest was 24, is 20",
        ),
        (
            "vae/config.json",
            lambda c: {**c, "scaling_factor": 0.9},
            r"model_parts\.vae\.scaling_factor was 1\.0, is 0\.9",
        ),
    ],
)
def test_a_run_is_not_resumed_with_another_scheduler_tokenizer_or_vae(project: Path, file, change, said) -> None:
    config = config_of(project, output=f"wieder {Path(file).parent}")
    loop_from_config(config, resume=False)
    path = project / "modèle" / file
    before = path.read_text(encoding="utf-8")
    try:
        path.write_text(json.dumps(change(json.loads(before))), encoding="utf-8")
        with pytest.raises(UserError, match=said):
            loop_from_config(config, resume=True)
    finally:
        path.write_text(before, encoding="utf-8")
    loop_from_config(config, resume=True)


def test_what_the_loop_cannot_drive_is_refused_before_the_scorers_load(project: Path, tmp_path: Path) -> None:
    """The scorer's folder does not exist, so its own error would come first if it were loaded first."""
    nowhere = {"scorers__reward": str(tmp_path / "nowhere"), "scorers__judge": None}
    index = project / "modèle" / "model_index.json"
    before = index.read_text(encoding="utf-8")
    try:
        index.write_text(before.replace("StableDiffusionPipeline", "WanPipeline"), encoding="utf-8")
        with pytest.raises(UserError, match="it holds a WanPipeline"):
            parts_from_config(config_of(project, **nowhere))
    finally:
        index.write_text(before, encoding="utf-8")
    torch.save({}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"a\.pt is a \.pt file"):
        parts_from_config(config_of(project, **nowhere, model__lora=str(tmp_path / "a.pt")))


def test_a_judge_that_is_the_reward_is_refused(project: Path) -> None:
    with pytest.raises(MetricsError, match="same weights as the reward scorer"):
        parts_from_config(config_of(project, scorers__judge=str(weights_folder("reward"))))


# --- the run ---


def test_lora_of_a_run_has_metadata(project: Path) -> None:
    config = config_of(project, output="ganz")
    lora, report = run_loop(loop_from_config(config, resume=False))
    with safe_open(lora, "pt") as file:
        said = file.metadata()
    assert said["dreambooth_dpo.rounds"] == "1" and json.loads(said["dreambooth_dpo.concept"])["name"] == "sks robot"
    assert report["rounds"] == 1 and (project / "ganz" / "report" / "report.html").is_file()


def test_run_that_keeps_the_original_also_writes_the_round_it_tried(project: Path) -> None:
    """The learning rate is too small for a gain: the LoRA has no effect, and the tried round's LoRA is written too."""
    config = config_of(project, output="original", stop__rule="best", train__learning_rate=1e-12)
    lora, report = run_loop(loop_from_config(config, resume=False))
    assert report["status"] == "original" and "changes nothing" in report["headline"]
    with safe_open(lora, "pt") as file:
        assert file.metadata()["dreambooth_dpo.rounds"] == "0"
        assert all(not file.get_tensor(k).any() for k in file.keys() if "lora_up" in k)
    with safe_open(lora.with_name(f"{lora.stem}_tried_round_1.safetensors"), "pt") as file:
        assert any(file.get_tensor(k).any() for k in file.keys() if "lora_up" in k)


def test_pipeline_on_disk_equals_the_models_of_other_tests(project: Path) -> None:
    """The pipeline on disk and the one in memory have the same weights, so results of other tests hold for the disk."""
    assert parts_from_config(config_of(project)).model.fingerprint == tiny_text_to_image().fingerprint
