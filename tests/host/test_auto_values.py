"""Settings that are auto, on the nodes: the family's values are used, said, and shown beside the widgets."""

from __future__ import annotations

import urllib.error

import pytest
import torch
from hosting import Server, comfyui_path
from safetensors.torch import save_file
from toy_graphs import toy_loop_graph

from dreambooth_dpo.benchmarks.families.zoo import ZOO, NotHere, build
from dreambooth_dpo.dpo_core.backends.comfyui import ComfyTextToImage, host, lora_prefixes, model_family
from dreambooth_dpo.dpo_core.backends.comfyui.classes import REFUSED
from dreambooth_dpo.dpo_core.families import table

pytestmark = pytest.mark.usefixtures("comfyui")
DRAWING = {"steps": 0, "cfg": 0, "width": 0, "height": 0, "sampler_name": "auto", "scheduler": "auto"}
TRAINING = {"rank": 0, "alpha": 0, "targets": "auto", "learning_rate": 0, "beta": 0, "auto_beta": "auto"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if not (comfyui_path() / "main.py").is_file():
        pytest.skip("no ComfyUI here")
    with Server(tmp_path_factory.mktemp("auto")) as running:
        yield running


def test_a_loop_in_which_everything_is_auto(server: Server) -> None:
    """The toybox is a family of its own: 16 steps of ddim at cfg 4, 64 pixels, rank 8, rate 2e-4, beta 2000."""
    done = server.run(toy_loop_graph(sample=DRAWING, train=TRAINING))
    drawn, trained = (done["outputs"][node]["dbdpo_auto"][0] for node in ("sample", "train"))
    assert drawn["family"] == trained["family"] == "Toybox"
    assert drawn["values"] == {
        "steps": 16, "cfg": 4.0, "width": 64, "height": 64, "sampler_name": "ddim", "scheduler": "ddim_uniform",
    }  # fmt: skip
    assert trained["values"]["beta"] == 2000 and trained["values"]["rank"] == 8
    assert trained["values"]["time_sampling"] == "table" and trained["values"]["auto_beta"] == "off"
    assert "auto (Toybox): rank 8" in done["outputs"]["train"]["text"][0]


def test_explicit_values_name_no_family(server: Server) -> None:
    done = server.run(toy_loop_graph())
    assert "auto (" not in done["outputs"]["train"]["text"][0]


def test_beta_is_adapted_on_request_and_shown(server: Server) -> None:
    done = server.run(toy_loop_graph(train={"auto_beta": "on"}))
    curve = done["outputs"]["train"]["dbdpo_curve"][0]
    assert curve["beta"][1:] == [100, 5000] and 100 <= curve["beta"][0] <= 5000
    assert done["outputs"]["train"]["dbdpo_auto"][0]["values"]["beta"] == "adapted"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("SD15", "SD 1.5"), ("SDXL-v-zsnr", "SDXL"), ("Flux-dev", "Flux.1"), ("Flux-schnell", "Flux.1 schnell"),
        ("Flux2-dev", "Flux.2 dev"), ("Flux2-klein", "Flux.2 klein"), ("Z-Image", "Z-Image"), ("Krea2", "Krea 2"),
        ("Qwen-Image", "Qwen-Image"), ("Chroma", "Chroma"), ("Anima", "Anima"), ("SD3.5-large", "SD 3.5"),
    ],
)  # fmt: skip
def test_a_models_family(kind: str, name: str) -> None:
    try:
        model = build(kind)[0]
    except NotHere as missing:
        pytest.skip(str(missing))
    family, layers = model_family(model), ["middle_block.1.proj_in", "output_blocks.0.0.in_layers.2"]
    assert family.name == name and ComfyTextToImage(model).kind in family.kinds
    # The table's word on the names in LoRA files is what the files have.
    own = [f"lora_unet_{layer.replace('.', '_')}" for layer in layers]
    native = list(lora_prefixes(model.model, layers).values()) == own
    assert native == (family.lora_names == "native")


def test_words_leave_out_what_has_no_value():
    from dreambooth_dpo.nodes.host.families import auto_words

    shown = {"family": "SDXL", "values": {"rank": 8, "learning_rate": 2e-5, "time_shift": None, "beta": 5000.0}}
    widgets = {"rank": 4, "learning_rate": 0, "time_shift": 0, "beta": 0}
    assert auto_words(shown, widgets) == "auto (SDXL): learning_rate 2e-05, beta 5000"
    assert auto_words(shown, dict.fromkeys(widgets, 1)) == ""


def test_every_architecture_that_trains_is_in_the_table() -> None:
    listed = {name for family in table()[0] for name in family.comfyui}
    assert {spec["class"] for spec in ZOO.values()} - listed == set(REFUSED)


def test_a_files_family_is_read_from_its_header(server: Server, tmp_path) -> None:
    """A Flux file, by the names and shapes of its tensors; what is no model has no family."""
    model = build("Flux-dev")[0].model.diffusion_model
    folder = server.folder / "models" / "diffusion_models"
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "tiny größe.safetensors")
    save_file({"a": torch.zeros(1)}, folder / "nothing.safetensors")
    found = host.class_of_file(folder / "tiny größe.safetensors")
    assert found is not None and found[0] in ("Flux", "FluxSchnell")
    assert host.class_of_file(folder / "nothing.safetensors") is None
    path = "/dreambooth_dpo/family?folder=diffusion_models&name="
    assert server.get(f"{path}tiny%20gr%C3%B6%C3%9Fe.safetensors")["family"].startswith("Flux.1")
    wrong = (f"{path}nothing.safetensors", f"{path}..%2F..%2Fx.safetensors", path.replace("diffusion_models", "loras"))
    for query, status in zip(wrong, (404, 404, 400), strict=True):
        with pytest.raises(urllib.error.HTTPError) as refused:
            server.get(query)
        assert refused.value.code == status
