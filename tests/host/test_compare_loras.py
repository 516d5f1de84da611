"""Compare LoRAs on a real ComfyUI: files of any kind, what is drawn, and the node in a graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hosting import Server, comfyui_path, executed, messages, run_path
from native_models import ADAPTER, adapter_state, furthest, random_model, same, weights_of
from safetensors.torch import save_file
from toy_graphs import FEW_PROMPTS, SAMPLING, node, toy_loop_graph, words

from dreambooth_dpo.dpo_core.backends.comfyui import (
    ComfyTextToImage,
    check_lora_file,
    host,
    lora_prefixes,
    with_lora_file,
)
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.evaluation.held_out import HeldOutPlan
from dreambooth_dpo.dpo_core.prompts import PromptSet
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.settings import SamplingSettings
from dreambooth_dpo.dpo_core.training.adapter import Adapter
from dreambooth_dpo.dpo_core.training.lora_files import lora_tensors
from dreambooth_dpo.toybox.concepts import concept_from_seed
from dreambooth_dpo.toybox.native import native_toybox

pytestmark = pytest.mark.usefixtures("comfyui")
HELD_OUT = ("a photo of a sks robot in snow", "a photo of a sks robot on sand")
DRAWING = SamplingSettings(steps=3, guidance=1.0, width=64, height=64, seed=5, batch_size=4)
ENCODER = "lora_te_text_model_encoder_layers_0_mlp_fc1"


@pytest.fixture(scope="module")
def toybox(comfyui: Path):
    with torch.inference_mode():
        return native_toybox()


def lora_of(model, scale: float = 0.05) -> dict[str, torch.Tensor]:
    """Tensors of a random LoRA of the MODEL."""
    with torch.inference_mode(False):
        adapter = Adapter(model.model.diffusion_model, ADAPTER)
        adapter.load(adapter_state(adapter, scale))
    tensors = lora_tensors(adapter, lora_prefixes(model.model, adapter.layers))
    return {key: value.detach().clone().contiguous() for key, value in tensors.items()}


def encoder_lora(clip, layer: str = ENCODER) -> dict[str, torch.Tensor]:
    """Tensors of a LoRA of rank 1 for one layer of the text encoder."""
    weight = clip.cond_stage_model.clip_l.transformer.text_model.encoder.layers[0].mlp.fc1.weight
    out, into = weight.shape
    return {f"{layer}.lora_up.weight": torch.ones(out, 1), f"{layer}.lora_down.weight": 0.1 * torch.ones(1, into)}


# --- files ---


@pytest.mark.usefixtures("as_nodes_run")
def test_a_lora_file_says_whether_it_changes_the_text_encoder(toybox, tmp_path):
    model, clip, _ = toybox
    save_file(lora_of(model), tmp_path / "plain.safetensors")
    save_file({**lora_of(model), **encoder_lora(clip)}, tmp_path / "both.safetensors")
    assert check_lora_file(model, clip, tmp_path / "plain.safetensors") is False
    assert check_lora_file(model, clip, tmp_path / "both.safetensors") is True
    worn, encoder = with_lora_file(model, clip, tmp_path / "both.safetensors", 0.5)
    assert len(worn.patches) > 10 and len(encoder.patcher.patches) == 1
    assert not model.patches and not clip.patcher.patches


@pytest.mark.usefixtures("as_nodes_run")
def test_a_file_that_does_not_fit_as_a_whole_is_refused_by_name_and_reason(toybox, tmp_path):
    model, clip, _ = toybox
    own, path = lora_of(model), tmp_path / "epoch 7.safetensors"
    key = next(k for k in own if k.endswith("lora_up.weight"))
    wide = {k: torch.cat([v, v]) if k == key else v for k, v in own.items()}
    cases = {
        r"none of its \d+ tensors matches \(first: no_such_layer": {"no_such_layer.lora_up.weight": own[key]},
        r"2 of its \d+ tensors match nothing in the MODEL and the CLIP: lora_te_nowhere": {
            **own, **encoder_lora(clip, "lora_te_nowhere"),
        },
        r"1 of its layers are of another size: its change of diffusion_model\.": wide,
    }  # fmt: skip
    for said, tensors in cases.items():
        save_file(tensors, path)
        with pytest.raises(
            UserError, match=rf"LoRA epoch 7\.safetensors does not fit this model \(BaseModel\): {said}"
        ):
            check_lora_file(model, clip, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="epoch 7.safetensors is not a readable safetensors file: it is cut off"):
        check_lora_file(model, clip, path)


@pytest.mark.usefixtures("as_nodes_run")
@pytest.mark.parametrize("kind", ["sd", "flux"])
def test_the_fit_counts_whole_and_partial_layers(kind):
    """A LoRA of each kind of model matches that kind as a whole."""
    model = random_model(kind)
    fit = host.lora_fit(model, None, lora_of(model))
    assert fit.denoiser > 3 and not fit.encoder and not fit.unread and not fit.misfits


# --- what is drawn ---


@pytest.fixture
def loras(comfyui: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ComfyUI's folder for LoRAs."""
    import folder_paths

    folder = tmp_path / "loras"
    folder.mkdir()
    known = ([str(folder)], folder_paths.folder_names_and_paths["loras"][1])
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", known)
    return folder


def test_names_are_those_of_the_hosts_list_and_a_pickle_is_refused(loras):
    from dreambooth_dpo.nodes.host.lora_files import check_loras, names_of, stamps

    (loras / "mine").mkdir()
    for name in ("mine/cat-2.safetensors", "mine/cat-10.safetensors", "old.pt"):
        (loras / name).write_bytes(b"x")
    assert check_loras("cat-*") is None and check_loras("mine/cat-2") is None
    assert [stamp[:3] for stamp in stamps("cat-*:0.5")] == [
        (str(Path("mine") / name), 0.5, 1) for name in ("cat-2.safetensors", "cat-10.safetensors")
    ]
    assert names_of([loras / "mine" / "cat-2.safetensors"]) == [str(Path("mine") / "cat-2.safetensors")]
    assert "LoRA old.pt is a .pt file. Only .safetensors is loaded" in check_loras("old.pt")
    assert "The nearest names are" in check_loras("dat-2") and stamps("dat-2") == []


def stage(toybox, run: Path, text: str, progress=None):
    """The node's work on two held-out prompts of concept 0, two pictures of each."""
    from dreambooth_dpo.nodes.host.runs import NodeProgress
    from dreambooth_dpo.nodes.host.scorer_files import load_scorer
    from dreambooth_dpo.nodes.sockets import Candidates, Sampler
    from dreambooth_dpo.nodes.stages.compare_loras import compare_loras

    concept = concept_from_seed(0).to_concept()
    sampler = Sampler("euler", "normal", "")
    handle = Candidates(run, "", concept, PromptSet(("x",), HELD_OUT), DRAWING, sampler)
    reward = load_scorer("toybox reward", "")
    return compare_loras(toybox, text, handle, (reward, None), 2, progress or NodeProgress(None))


def untouched(toybox, before: dict[str, torch.Tensor]) -> bool:
    """Whether MODEL and CLIP carry no patch, and the weights are as before once the host unloads its clones."""
    import comfy.model_management as management

    management.unload_all_models()
    return same(weights_of(toybox[0]), before) and not toybox[0].patches and not toybox[1].patcher.patches


def stored(run: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """The last comparison's fact, and the latents of each LoRA's set by its name."""
    with RunFolder(run) as folder:
        facts = folder.facts("comparison_")
        largest = max(facts.values(), key=lambda fact: len(fact["sets"]))
        return largest, {name: folder.latents(kept) for name, kept in largest["sets"].items()}


@pytest.mark.usefixtures("as_nodes_run")
def test_pictures_are_those_of_the_stock_loader_and_are_drawn_once(toybox, loras, tmp_path):
    import comfy.sd

    model, clip, vae = toybox
    files = {"plain": lora_of(model), "both": {**lora_of(model, 0.02), **encoder_lora(clip)}}
    for name, tensors in files.items():
        save_file(tensors, loras / f"my {name}.safetensors")
    before, run = weights_of(model), tmp_path / "run"
    stage(toybox, run, "my plain:0.5")
    old = {p: p.stat().st_mtime_ns for p in run.rglob("*.png")}
    done = stage(toybox, run, "my *\nmy plain:0.5")
    assert {p: p.stat().st_mtime_ns for p in old} == old and len(old) == 8
    _, latents = stored(run)
    assert set(latents) == {"without a LoRA", "my plain at 0.5", "my plain at 1", "my both at 1"}
    planned = HeldOutPlan(HELD_OUT, 2, DRAWING, DRAWING.seed, {}).candidates()
    prompts, seeds = [c.prompt for c in planned], [c.seed for c in planned]
    for name, tensors, strength in (("my plain at 0.5", "plain", 0.5), ("my both at 1", "both", 1.0)):
        parts = comfy.sd.load_lora_for_models(model, clip, dict(files[tensors]), strength, strength)
        drawn = ComfyTextToImage(*parts, vae, 64, 64, "euler", "normal").sample(prompts, seeds, DRAWING)
        assert furthest(latents[name], drawn) < 1e-4
        assert furthest(drawn, latents["without a LoRA"]) > 0.05
    assert untouched(toybox, before)
    assert done.report.count("\n") >= 5 and done.plane.width == 1024


@pytest.mark.usefixtures("as_nodes_run")
def test_the_winner_is_given_out_and_without_one_the_model_itself(toybox, loras, tmp_path, monkeypatch):
    """Whichever LoRA scores higher by a made-up scorer: brightness of "bright", darkness of nothing."""
    from dreambooth_dpo.metrics import scorers as scored

    model, clip, _ = toybox
    save_file(lora_of(model), loras / "only.safetensors")
    run = tmp_path / "run"
    drawn = {}

    def score(sign: float):
        def of(self, images, prompts):
            values = np.asarray([float(image.mean()) for image in images])
            drawn.setdefault("plain", values)
            return np.where(np.isin(values, drawn["plain"]), 0.0, sign) + 0.01 * np.arange(len(images))

        return of

    for sign, best in ((1.0, "only"), (-1.0, None)):
        for kind in (scored.FidelityScorer, scored.AlignmentScorer):
            monkeypatch.setattr(kind, "score", score(sign))
            monkeypatch.setattr(kind, "fingerprint", f"{kind.__name__}{sign}", raising=False)
        done = stage(toybox, run / f"{sign}", "only")
        assert done.name == "only.safetensors"
        if best:
            assert done.strength == 1.0 and done.model.patches and done.report.startswith("only is the best of 1")
        else:
            assert done.strength == 0.0 and done.model is model and done.clip is clip
        drawn.clear()


@pytest.mark.usefixtures("as_nodes_run")
def test_an_interrupt_keeps_what_was_drawn_and_leaves_the_model(toybox, loras, tmp_path):
    from dreambooth_dpo.nodes.host.runs import NodeProgress

    class Interrupted(Exception):
        pass

    class Stops(NodeProgress):
        def __call__(self, stage, done, total, *more, **named) -> None:
            if stage.startswith("sample compare_"):
                raise Interrupted

    model = toybox[0]
    save_file(lora_of(model), loras / "one.safetensors")
    save_file(lora_of(model, 0.02), loras / "two.safetensors")
    before, run = weights_of(model), tmp_path / "run"
    with pytest.raises(Interrupted):
        stage(toybox, run, "*", Stops(None))
    assert untouched(toybox, before)
    old = {p: p.stat().st_mtime_ns for p in run.rglob("*.png")}
    stage(toybox, run, "*")
    assert len(old) == 8 and {p: p.stat().st_mtime_ns for p in old} == old


# --- the node ---


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if not (comfyui_path() / "main.py").is_file():
        pytest.skip("no ComfyUI here")
    with Server(tmp_path_factory.mktemp("vergleich")) as running:
        yield running


def graph(**changes: object) -> dict:
    """Two epochs of the toybox, compared; the best one on the stock loader by its name and strength."""
    whole = toy_loop_graph(toy={"personalized": False}, prompts=FEW_PROMPTS)
    found = {name: whole[name] for name in ("toy", "concept", "prompts", "scorer", "judge")}
    parts = {"model": ["toy", 0], "clip": ["toy", 1], "vae": ["toy", 2]}
    drawing = {k: v for k, v in SAMPLING.items() if k not in ("candidates_per_prompt", "seed")}
    measuring = {"scorer": ["scorer", 0], "judge": ["judge", 0], "seeds_per_prompt": 2, "seed": 1_000_003}
    subject = {"concept": ["concept", 0], "prompts": ["prompts", 0], "run_name": "epochs"}
    found["epochs"] = node("ToyboxEpochs", **parts, concept=0, steps=6, epochs=2)
    given = {**parts, **subject, **measuring, **drawing, "steps": 3, "loras": ["epochs", 0], **changes}
    found["compare"] = node("CompareLoras", **given)
    found["loader"] = {
        "class_type": "LoraLoader",
        "inputs": {
            "model": ["toy", 0], "clip": ["toy", 1], "lora_name": ["compare", 0],
            "strength_model": ["compare", 1], "strength_clip": ["compare", 1],
        },
    }  # fmt: skip
    found["text"] = {"class_type": "CLIPTextEncode", "inputs": {"clip": ["loader", 1], "text": "a sks robot"}}
    found["shown"] = words(["text", 0])
    return found


def test_the_node_ranks_epochs_and_feeds_the_stock_loader(server: Server):
    done = server.run(graph())
    assert {"epochs", "compare", "loader", "text"} <= executed(done)
    shown = done["outputs"]["compare"]
    assert len(shown["images"]) == 2 and shown["dbdpo_auto"][0]["values"]["steps"] == 3
    lines = shown["text"][0].split("\n")
    assert "2 pictures of each of 4 held-out prompts" in lines[1]
    assert sum(name in line for line in lines[2:5] for name in ("step0003", "step0006", "without a LoRA")) == 3
    fact, _ = stored(run_path(server, "epochs"))
    assert fact["words"] == lines[0] and len(fact["places"]) == 3
    files = sorted(p.name for p in (server.folder / "models" / "loras" / "dreambooth_dpo").iterdir())
    assert files == ["toybox_0-step0003.safetensors", "toybox_0-step0006.safetensors"]
    # A pattern finds the same files, and nothing is drawn again.
    times = {p: p.stat().st_mtime_ns for p in run_path(server, "epochs").rglob("*.png")}
    again = server.run(graph(loras="toybox_0-*"))
    assert {p: p.stat().st_mtime_ns for p in times} == times and "compare" in executed(again)
    assert again["outputs"]["compare"]["text"] == shown["text"]


def test_wrong_loras_are_refused_before_anything_runs(server: Server):
    refused = {"my_cat": "no LoRA is named 'my_cat'", "": "loras is empty", "a:9": "must be a number above 0"}
    for text, said in refused.items():
        status, answer = server.post("/prompt", {"prompt": graph(loras=text)})
        assert said in str(answer["node_errors"])
        if status == 200:  # other branches still run: let them end
            server.wait(answer["prompt_id"])


def test_a_linked_wrong_name_ends_at_the_node(server: Server):
    whole = graph(loras=["toy", 6])  # the word "sks"
    found = server.wait(server.queue(whole))
    error = messages(found)["execution_error"]
    assert error["node_id"] == "compare" and "no LoRA is named 'sks'" in error["exception_message"]
