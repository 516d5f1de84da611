"""Candidates in few steps with a LoRA of their own: by the backend, by Sample Candidates, and in DPO Rounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hosting import Server, comfyui_path, executed, run_path
from native_models import DRAWING, PROMPTS, furthest, random_live, users_lora
from safetensors.torch import save_file
from toy_graphs import SAMPLING, tiny_rounds

from dreambooth_dpo.dpo_core.backends.comfyui import ComfyTextToImage, host, with_live_adapter
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.toybox.native import native_toybox

pytestmark = pytest.mark.usefixtures("comfyui")
RUN = "few_steps"


@pytest.fixture(scope="module")
def toybox(comfyui):
    with torch.inference_mode():
        return native_toybox()


@pytest.fixture
def lora(toybox, tmp_path):
    path = tmp_path / "fäst.safetensors"
    save_file(users_lora(toybox[0]), path)
    return path


@pytest.mark.usefixtures("as_nodes_run")
def test_it_acts_inside_alone_and_leaves_the_live_adapter_and_another_strength_as_they_are(toybox, lora):
    """At 0.5 beside the same file at 0.8 as the user's LoRA: inside as a load of both; with the user's off, as 0.5."""
    model, clip, vae = toybox
    live, tensors = random_live(model), users_lora(model)

    def latents(*strengths: float) -> torch.Tensor:
        carrying = model
        for strength in strengths:
            carrying = host.with_lora(carrying, tensors, strength)
        return ComfyTextToImage(with_live_adapter(carrying, live), clip, vae, 64, 64).sample(PROMPTS[:1], [1], DRAWING)

    given = ComfyTextToImage(with_live_adapter(host.with_lora(model, tensors, 0.8), live), clip, vae, 64, 64)
    given.set_candidate_lora(lora, 0.5)
    before, plain = given.sample(PROMPTS[:1], [1], DRAWING), given.patcher
    with given.for_candidates():
        inside, worn = given.sample(PROMPTS[:1], [1], DRAWING), given.patcher
    with given.for_candidates():
        assert given.patcher is worn, "the host would load the weights for every batch"
    with given.at_lora_strength(0.0), given.for_candidates():
        alone = given.sample(PROMPTS[:1], [1], DRAWING)
    assert given.patcher is plain and furthest(given.sample(PROMPTS[:1], [1], DRAWING), before) < 1e-4
    assert furthest(inside, latents(0.8, 0.5)) < 1e-4 < furthest(inside, before)
    assert furthest(alone, latents(0.5)) < 1e-4 < furthest(alone, inside)


@pytest.mark.usefixtures("as_nodes_run")
def test_sample_candidates_draws_with_it_and_names_the_set_by_it(nodes, toybox, lora, tmp_path):
    from dreambooth_dpo.dpo_core.concept import Concept
    from dreambooth_dpo.dpo_core.prompts import PromptSet
    from dreambooth_dpo.nodes.host.runs import NodeProgress
    from dreambooth_dpo.nodes.sockets import Candidates
    from dreambooth_dpo.nodes.stages.evaluate import evaluation_set
    from dreambooth_dpo.nodes.stages.sample import CandidateLora, draw_candidates, sampling_of

    model, clip, vae = toybox
    photos = np.full((2, 64, 64, 3), 90, np.uint8)
    concept, prompts = Concept("sks", "robot", photos), PromptSet(tuple(PROMPTS[:2]), (PROMPTS[3],))

    def handle(**given):
        settings, sampler = sampling_of({**SAMPLING, **given})
        return Candidates(tmp_path, "", concept, prompts, settings, sampler, 0)

    def drawn(model, given, lora=None):
        found, _ = draw_candidates(model, clip, vae, given, NodeProgress(None), lora)
        with RunFolder(tmp_path) as run:
            return found, run.latents(found.set_name)

    few, plain = handle(candidate_steps=2, candidate_cfg=0), handle(steps=2)
    with_it, latents = drawn(model, few, CandidateLora(lora, 0.5))
    _, wanted = drawn(host.with_lora(model, users_lora(model), 0.5), plain)
    without, others = drawn(model, few)
    assert furthest(latents, wanted) < 1e-4 < furthest(latents, others)
    names = {found.set_name for found in (with_it, without, drawn(model, handle())[0])}
    assert len(names) == 3 and drawn(model, few, CandidateLora(lora, 0.4))[0].set_name not in names
    assert with_it.settings.steps == SAMPLING["steps"], "held-out pictures keep theirs"
    sets = {evaluation_set(model, clip, vae, h, h.settings, 2, NodeProgress(None))[1] for h in (with_it, handle())}
    assert len(sets) == 1, "pictures that were measured are not drawn again for another way to draw candidates"


@pytest.mark.usefixtures("as_nodes_run")
def test_one_that_changes_the_text_encoder_is_on_the_clip_too(toybox, tmp_path):
    """Inside prompts are encoded by the CLIP with the LoRA, once; outside as before."""
    model, clip, vae = toybox
    key = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    tensors = {f"{key}.lora_up.weight": torch.randn(128, 2), f"{key}.lora_down.weight": torch.randn(2, 128)}
    save_file({**users_lora(model), **tensors}, tmp_path / "both.safetensors")
    given = ComfyTextToImage(model, clip, vae, 64, 64)
    given.set_candidate_lora(tmp_path / "both.safetensors", 1.0)
    before = given._entry(PROMPTS[0])[0].clone()
    with given.for_candidates():
        inside = given._entry(PROMPTS[0])[0]
    with given.for_candidates():
        assert given._entry(PROMPTS[0])[0] is inside
    assert furthest(inside, before) > 1e-3 and torch.equal(given._entry(PROMPTS[0])[0], before)


@pytest.mark.usefixtures("as_nodes_run")
def test_finished_candidates_take_the_candidates_guidance(toybox, tmp_path):
    """Drafts at candidate_cfg are finished at it: the same pictures as without drafts."""
    from dreambooth_dpo.dpo_core.concept import Concept
    from dreambooth_dpo.dpo_core.prompts import PromptSet
    from dreambooth_dpo.dpo_core.records import Pair
    from dreambooth_dpo.dpo_core.settings import PairSettings
    from dreambooth_dpo.nodes.host.runs import NodeProgress
    from dreambooth_dpo.nodes.sockets import Candidates, Pairs, Scored
    from dreambooth_dpo.nodes.stages.finish import finish_candidates
    from dreambooth_dpo.nodes.stages.sample import draw_candidates, sampling_of

    concept = Concept("sks", "robot", np.full((2, 64, 64, 3), 90, np.uint8))
    prompts = PromptSet(tuple(PROMPTS[:1]), (PROMPTS[3],))

    def drawn(**given):
        settings, sampler = sampling_of({**SAMPLING, "cfg": 4.0, **given})
        handle = Candidates(tmp_path, "", concept, prompts, settings, sampler, 0)
        return draw_candidates(*toybox, handle, NodeProgress(None))[0]

    drafts, wanted = drawn(steps=2, candidate_cfg=1.0), drawn(cfg=1.0)
    with RunFolder(tmp_path) as run:
        run.set_pairs("some", [Pair(0, 1, 0.7, 0.7)])
    pairs = Pairs(Scored(drafts, ("fidelity",), ("alignment",)), "some", PairSettings())
    finished, _, _ = finish_candidates(*toybox, pairs, SAMPLING["steps"], NodeProgress(None))
    with RunFolder(tmp_path) as run:
        latents, full = run.latents(finished.set_name), run.latents(wanted.set_name)
    assert furthest(latents, full[:2]) < 1e-4 and finished.settings.guidance == 4.0


@pytest.mark.usefixtures("as_nodes_run")
def test_values_that_come_by_a_link_are_checked_when_they_are_known(server):
    from dreambooth_dpo.nodes.host.lora_files import check_candidate_lora
    from dreambooth_dpo.nodes.stages.sample import candidate_lora

    assert check_candidate_lora("fast.safetensors", 0) and check_candidate_lora(None, 0) is None
    with pytest.raises(UserError, match="candidate_steps is 0"):
        candidate_lora({"candidate_lora": "fast.safetensors", "candidate_steps": 0})
    assert candidate_lora({"candidate_lora": "none", "candidate_steps": 0}) is None


@pytest.fixture(scope="module")
def server(tmp_path_factory, toybox):
    if not (comfyui_path() / "main.py").is_file():
        pytest.skip("no ComfyUI here")
    folder = tmp_path_factory.mktemp("few_steps")
    (folder / "models" / "loras").mkdir(parents=True)
    save_file(users_lora(toybox[0]), folder / "models" / "loras" / "fast.safetensors")
    (folder / "models" / "loras" / "old.pt").write_bytes(b"x")
    with Server(folder) as running:
        yield running


def test_all_rounds_draw_candidates_in_few_steps_with_it(server: Server):
    given = {"candidate_lora": "fast.safetensors", "candidate_lora_strength": 0.5, "candidate_steps": 2}
    server.run(tiny_rounds(RUN, 2, 2, **given))
    assert drawn_sets(server) == 2
    assert "rounds" not in executed(server.run(tiny_rounds(RUN, 2, 2, **given)))
    tensors = {key: 2 * value for key, value in _tensors(server).items()}
    save_file(tensors, server.folder / "models" / "loras" / "fast.safetensors")
    assert "rounds" in executed(server.run(tiny_rounds(RUN, 2, 2, **given))), "another file of that name"
    assert drawn_sets(server) == 4


def drawn_sets(server: Server) -> int:
    return sum(path.name.startswith("candidates_") for path in run_path(server, RUN).iterdir())


def _tensors(server: Server) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(server.folder / "models" / "loras" / "fast.safetensors")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"candidate_lora": "fast.safetensors"}, "candidate_steps is 0"),
        ({"candidate_lora": "gone.safetensors", "candidate_steps": 2}, "gone.safetensors': it must be one of"),
        ({"candidate_lora": "old.pt", "candidate_steps": 2}, "Only .safetensors is loaded"),
        ({"candidate_steps": 2, "draft_steps": 2}, "two ways to draw for less"),
    ],
)
def test_what_cannot_be_is_refused_at_the_door(server: Server, given: dict, said: str):
    with pytest.raises(ValueError, match=said):
        server.queue(tiny_rounds(RUN, 1, 2, **given))


@pytest.mark.usefixtures("as_nodes_run")
def test_a_lora_of_another_model_is_refused_by_name(toybox, tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"lora_unet_nothing.lora_up.weight": torch.ones(4, 1)}, path)
    with pytest.raises(UserError, match=r"LoRA other\.safetensors does not fit this model"):
        ComfyTextToImage(*toybox, 64, 64).set_candidate_lora(path, 1.0)
