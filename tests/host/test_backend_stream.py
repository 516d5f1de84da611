"""Level "stream" on a MODEL: loaded into main memory with its patches, trained as at level "low", unloaded afterwards.

On a CPU main memory is the device's memory. Which weights are used when is shown by a device stand-in
(benchmarks/common/device_stand_in.py), for every architecture by benchmarks/families.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from native_models import ADAPTER, DRAWING, PROMPTS, adapter_state, left_behind, noise, same, weights_of

from dreambooth_dpo.benchmarks.common.device_stand_in import block_sizes, spoiled
from dreambooth_dpo.dpo_core.backends.comfyui import ComfyTextToImage, host, lora_prefixes
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.progress import Progress, silent
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.settings import TrainSettings
from dreambooth_dpo.dpo_core.training.adapter import Adapter
from dreambooth_dpo.dpo_core.training.dataset import PairData
from dreambooth_dpo.dpo_core.training.lora_files import lora_tensors
from dreambooth_dpo.dpo_core.training.memory.levels import at_level, streams
from dreambooth_dpo.dpo_core.training.round import train_round
from dreambooth_dpo.toybox.native import native_toybox

pytestmark = pytest.mark.usefixtures("as_nodes_run")
SETTINGS = TrainSettings(steps=2, batch_size=2, warmup_steps=0, learning_rate=1e-2, winner_error_collapse=10)


@pytest.fixture
def model(comfyui):
    """The toybox with a LoRA of random weights, patched as by ComfyUI's own loader."""
    import comfy.sd

    plain = native_toybox()[0]
    with torch.inference_mode(False):
        adapter = Adapter(plain.model.diffusion_model, ADAPTER, seed=3)
        adapter.load(adapter_state(adapter))
        tensors = lora_tensors(adapter, lora_prefixes(plain.model, adapter.layers))
    return comfy.sd.load_lora_for_models(plain, None, tensors, 1.0, 0)[0]


def backend_of(model) -> ComfyTextToImage:
    return ComfyTextToImage(model, *native_toybox()[1:], 64, 64)


def train(backend: ComfyTextToImage, folder: Path, memory: str, progress: Progress = silent) -> tuple[dict, str]:
    """The trained adapter's state and the memory level that training ended at, as the training node does it."""
    settings = SETTINGS.model_copy(update={"memory": memory})
    with RunFolder(folder) as run, backend.training(streams(settings)):
        adapter = Adapter(backend.denoiser, ADAPTER, seed=5, device=backend.device)
        latents = noise(6, 4, 16, 16, seed=6)
        data = PairData(latents[:3], latents[3:], backend.encode_prompts(PROMPTS[:3]))
        train_round(run, 0, backend, adapter, data, settings, 7, progress)
        return adapter.state(), str(run.fact("memory"))


@pytest.fixture
def no_room(monkeypatch, model):
    """The host does not load the MODEL as a whole onto its device: a stand-in for a card that is too small for it."""
    import comfy.model_management as management

    load, loads = management.load_models_gpu, []

    def loading(models, *args, force_full_load=False, **more):
        if models[0].model is model.model and force_full_load:
            loads.append(host.in_main_memory(models[0]))
            if not loads[-1]:
                raise torch.OutOfMemoryError("no room")
        return load(models, *args, force_full_load=force_full_load, **more)

    monkeypatch.setattr(management, "load_models_gpu", loading)
    return loads


@pytest.mark.parametrize("loaded", [False, True])
def test_a_patched_model_trains_in_main_memory_as_at_level_low(model, tmp_path, loaded):
    import comfy.model_management as management

    backend = backend_of(model)
    weights = weights_of(model)
    expected = train(backend, tmp_path / "low", "low")[0]
    host.unload(model)
    drawn = backend.sample(PROMPTS[:2], [1, 2], DRAWING) if loaded else None
    inside = []
    trained, level = train(backend, tmp_path / "stream", "stream", lambda *_, **__: inside.append(backend.whole))
    assert level == "stream" and same(trained, expected)
    assert not any(inside) and inside and backend.whole and backend.patcher is model
    assert same(weights_of(model), weights) and not left_behind(model) and not model.backup
    assert not any(host.in_main_memory(held.model) for held in management.current_loaded_models)
    again = backend.sample(PROMPTS[:2], [1, 2], DRAWING)
    assert drawn is None or torch.equal(again, drawn)


def test_the_patched_weights_come_to_the_device_one_block_at_a_time(model, capsys):
    """Gradients of the patched MODEL on the stand-in are those of level "low", bit for bit."""

    def gradients(level: str, stream: bool) -> list[torch.Tensor]:
        with backend.training(stream):
            adapter = Adapter(backend.denoiser, ADAPTER, seed=5, device=backend.device)
            adapter.load(adapter_state(adapter))
            x0, target = noise(2, *backend.latent_shape, seed=6), noise(2, *backend.latent_shape, seed=7)
            given = x0, backend.draw_timesteps(2, torch.Generator().manual_seed(1)), backend.encode_prompts(PROMPTS[:2])
            outside, blocks = block_sizes(backend.denoiser)
            with (
                spoiled(backend.denoiser) if stream else nullcontext() as mover,
                at_level(backend.denoiser, level, mover=mover),
                adapter.attached(),
            ):
                loss = (backend.predict(*given) - target).square().mean()
                found = torch.autograd.grad(loss, adapter.parameters())
            if mover is not None:
                with capsys.disabled():
                    print(f"\nstand-in, toybox with a LoRA: {mover.peak} of {outside + sum(blocks)} bytes")
                assert mover.peak == outside + max(blocks)
            return list(found)

    backend = backend_of(model)
    assert all(torch.equal(a, b) for a, b in zip(gradients("low", False), gradients("stream", True), strict=True))


def test_auto_begins_at_stream_where_the_model_does_not_fit(model, tmp_path, no_room, caplog):
    backend = backend_of(model)
    trained, level = train(backend, tmp_path / "auto", "auto")
    assert level == "stream" and no_room == [False, True] and "with the weights in main memory" in caplog.text
    assert "at memory level" not in caplog.text, "another level was tried"
    assert same(trained, train(backend, tmp_path / "stream", "stream")[0])


@pytest.mark.parametrize("memory", ["fast", "low"])
def test_another_level_says_that_the_model_does_not_fit(model, tmp_path, no_room, memory):
    with pytest.raises(UserError, match=r"does not fit onto cpu as a whole.*Set memory to auto or stream"):
        train(backend_of(model), tmp_path / "run", memory)


def test_an_interrupt_leaves_the_model_as_it_was(model, tmp_path):
    import comfy.model_management as management

    backend, weights = backend_of(model), weights_of(model)
    drawn = backend.sample(PROMPTS[:2], [1, 2], DRAWING)

    def cancel(stage: str, *_, **__) -> None:
        if stage.startswith("train"):
            raise management.InterruptProcessingException

    with pytest.raises(management.InterruptProcessingException):
        train(backend, tmp_path / "run", "stream", cancel)
    assert backend.whole and backend.patcher is model and not left_behind(model)
    assert not any(host.in_main_memory(held.model) for held in management.current_loaded_models)
    assert torch.equal(backend.sample(PROMPTS[:2], [1, 2], DRAWING), drawn)
    host.unload(model)
    assert same(weights_of(model), weights)
