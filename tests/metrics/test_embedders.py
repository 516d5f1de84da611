"""Tests loading embedders from folders and files, the messages of refusals, and preprocessing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dreambooth_dpo.metrics.embedders import DinoV2Embedder, Embedder, OpenClipEmbedder, load_embedder
from dreambooth_dpo.metrics.errors import MetricsError
from dreambooth_dpo.metrics.model_files import CLIP_WEIGHTS, DINO_WEIGHTS
from dreambooth_dpo.metrics.pictures import Preprocess

HALF = (0.5, 0.5, 0.5)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)


def test_embeddings_are_unit_float32(clip_folder, dino_folder, images):
    for embedder, d in ((load_embedder(clip_folder), 128), (load_embedder(dino_folder), 32)):
        assert isinstance(embedder, Embedder)
        rows = embedder.embed_images(images)
        assert rows.dtype == np.float32
        assert rows.shape == (3, d)
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_last_result_is_cached_and_protected_from_changes(reward_folder, images, monkeypatch):
    embedder = load_embedder(reward_folder)
    first = embedder.embed_images(images)
    kept = first.copy()
    first[:] = 0
    encode, calls = embedder._encode, []
    monkeypatch.setattr(embedder, "_encode", lambda pixels: calls.append(1) or encode(pixels))
    np.testing.assert_array_equal(embedder.embed_images(images.copy()), kept)
    assert calls == []
    assert not np.array_equal(embedder.embed_images(images ^ 1), kept)
    assert calls == [1]


def test_dino_embedding_is_the_class_token_of_transformers(dino_folder, images):
    """Images of the model's own size (56): no resize, mean and std of the folder's preprocessor_config.json."""
    from transformers import AutoImageProcessor, Dinov2Model

    small = images[:, :56, :56]
    processor = AutoImageProcessor.from_pretrained(dino_folder, do_resize=False)
    pixels = processor(list(small), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        token = Dinov2Model.from_pretrained(dino_folder)(pixels).last_hidden_state[:, 0]
    theirs = (token / token.norm(dim=1, keepdim=True)).numpy()
    embedder = DinoV2Embedder(dino_folder)
    np.testing.assert_allclose(embedder.embed_images(small), theirs, atol=1e-5)
    assert embedder.embed_texts(["a robot"]) is None


def test_fingerprint_depends_on_weights_and_preprocessing(reward_folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(reward_folder, copy)
    start = load_embedder(reward_folder).fingerprint
    assert load_embedder(copy).fingerprint == start
    config = json.loads((copy / "open_clip_config.json").read_text(encoding="utf-8"))
    config["preprocess_cfg"]["mean"] = [0.4, 0.5, 0.5]
    (copy / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    other_mean = load_embedder(copy).fingerprint
    weights = load_file(copy / "open_clip_model.safetensors")
    weights["logit_scale"] += 1
    save_file(weights, copy / "open_clip_model.safetensors")
    assert len({start, other_mean, load_embedder(copy).fingerprint}) == 3


@pytest.fixture
def tiny_clip(tmp_path, monkeypatch) -> str:
    """The name of a small architecture, registered with open_clip, with open_clip's own tokenizer."""
    import open_clip

    from dreambooth_dpo.toybox.train.scorers import model_cfg

    config = model_cfg("reward")
    config["text_cfg"] = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    (tmp_path / "tiny-clip.json").write_text(json.dumps(config), encoding="utf-8")
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", list(open_clip.factory._MODEL_CONFIG_PATHS))
    open_clip.add_model_config(tmp_path / "tiny-clip.json")
    return "tiny-clip"


def test_architecture_by_name_with_a_weights_file(tiny_clip, tmp_path, images):
    """open_clip's own tokenizer, and OpenAI's mean unless another is given."""
    import open_clip

    torch.manual_seed(0)
    model = open_clip.create_model(tiny_clip).eval()
    save_file(model.state_dict(), tmp_path / "tiny.safetensors")

    embedder = load_embedder(f"{tiny_clip}={tmp_path / 'tiny.safetensors'}")
    assert embedder.preprocess.mean == open_clip.OPENAI_DATASET_MEAN
    with torch.no_grad():
        theirs = model.encode_image(embedder.preprocess(images), normalize=True).numpy()
        texts = model.encode_text(open_clip.get_tokenizer(tiny_clip)(["a robot"]), normalize=True).numpy()
    np.testing.assert_allclose(embedder.embed_images(images), theirs, atol=1e-6)
    np.testing.assert_allclose(embedder.embed_texts(["a robot"]), texts, atol=1e-6)
    given = OpenClipEmbedder(tmp_path / "tiny.safetensors", architecture=tiny_clip, mean=HALF, std=HALF)
    assert given.preprocess.mean == given.preprocess.std == HALF
    assert given.fingerprint != embedder.fingerprint


def test_invalid_weights_files_are_refused(reward_folder, tiny_clip, tmp_path):
    pickle = tmp_path / "ViT-B-32.bin"
    torch.save({}, pickle)
    for path in (pickle, pickle.with_suffix(".pt")):
        with pytest.raises(MetricsError, match=r"only \.safetensors weights are loaded"):
            OpenClipEmbedder(path, architecture="ViT-B-32")
    with pytest.raises(MetricsError, match=r"lost\.safetensors does not exist: put the model's"):
        OpenClipEmbedder(tmp_path / "lost.safetensors", architecture="ViT-B-32")
    weights = reward_folder / "open_clip_model.safetensors"
    with pytest.raises(MetricsError, match=r"knows no architecture 'ViT-B-23'\. .*similar are .*ViT-B-32"):
        OpenClipEmbedder(weights, architecture="ViT-B-23")
    with pytest.raises(MetricsError, match="needs the name of its architecture"):
        load_embedder(weights)
    with pytest.raises(MetricsError, match="give the model's whole folder"):
        OpenClipEmbedder(weights, architecture="ViT-B-16-SigLIP")
    with pytest.raises(MetricsError, match=r"cannot load tiny-clip.* of architecture tiny-clip\?"):
        OpenClipEmbedder(weights, architecture=tiny_clip)


def test_missing_clip_folder_message_names_files_and_folder(tmp_path):
    folder = tmp_path / "models" / "clip"
    with pytest.raises(MetricsError) as missing:
        load_embedder(folder)
    for word in (str(folder), "does not exist", "open_clip_model.safetensors", "hf download", f"--local-dir {folder}"):
        assert word in str(missing.value)


@pytest.mark.parametrize("lost", ["open_clip_config.json", "open_clip_model.safetensors", "tokenizer"])
def test_incomplete_clip_folder_names_the_missing_file(reward_folder, tmp_path, lost):
    folder = tmp_path / "clip"
    shutil.copytree(reward_folder, folder, ignore=lambda _, names: [n for n in names if n.startswith(lost)])
    with pytest.raises(MetricsError, match=rf"lacks (the )?{lost}"):
        load_embedder(folder)


def test_clip_folder_with_a_pickle_only_is_refused(reward_folder, tmp_path):
    folder = tmp_path / "clip"
    shutil.copytree(reward_folder, folder)
    torch.save(load_file(folder / "open_clip_model.safetensors"), folder / "open_clip_pytorch_model.bin")
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(MetricsError, match=r"open_clip_pytorch_model\.bin is not used: only \.safetensors"):
        load_embedder(folder)


def test_damaged_weights_are_a_clear_error(reward_folder, dino_folder, tmp_path):
    for source, name in ((reward_folder, "open_clip_model.safetensors"), (dino_folder, "model.safetensors")):
        folder = tmp_path / source.name
        shutil.copytree(source, folder)
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(MetricsError, match=r"is not a readable safetensors file: it is cut off"):
            load_embedder(folder)


def test_nan_in_the_weights_is_an_error(reward_folder, tmp_path, images):
    folder = tmp_path / "clip"
    shutil.copytree(reward_folder, folder)
    weights = load_file(folder / "open_clip_model.safetensors")
    weights["visual.proj"][:] = torch.nan
    save_file(weights, folder / "open_clip_model.safetensors")
    with pytest.raises(MetricsError, match="gave NaN embeddings"):
        load_embedder(folder).embed_images(images)


def test_config_that_is_not_open_clips_is_refused(reward_folder, tmp_path):
    folder = tmp_path / "clip"
    shutil.copytree(reward_folder, folder)
    config = folder / "open_clip_config.json"
    for text, words in (("{", "cannot read"), ("[]", "not a JSON object"), ("{}", "no model_cfg")):
        config.write_text(text, encoding="utf-8")
        with pytest.raises(MetricsError, match=words):
            load_embedder(folder)


def test_text_tower_from_the_hub_is_not_downloaded(reward_folder, tmp_path):
    folder = tmp_path / "clip"
    shutil.copytree(reward_folder, folder)
    config = json.loads((folder / "open_clip_config.json").read_text(encoding="utf-8"))
    config["model_cfg"]["text_cfg"]["hf_model_name"] = "xlm-roberta-base"
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(MetricsError, match="xlm-roberta-base from the hub, which would be downloaded"):
        load_embedder(folder)


def test_hub_models_need_the_prefix(monkeypatch):
    """ "laion/some-model" is a missing folder; only "hf-hub:laion/some-model" reaches open_clip's downloader."""
    import open_clip

    asked = []

    def create(name, *_, **__):
        asked.append(name)
        raise OSError("no connection")

    monkeypatch.setattr(open_clip, "create_model", create)
    with pytest.raises(MetricsError, match="folder laion/some-model does not exist"):
        load_embedder("laion/some-model")
    assert asked == []
    with pytest.raises(MetricsError, match=r"cannot load hf-hub:laion/some-model: no connection\. Check the name"):
        load_embedder("hf-hub:laion/some-model")
    assert asked == ["hf-hub:laion/some-model"]


@pytest.mark.parametrize("lost", ["model.safetensors", "preprocessor_config.json"])
def test_incomplete_dino_folder_names_the_missing_file(dino_folder, tmp_path, lost):
    folder = tmp_path / "dino"
    shutil.copytree(dino_folder, folder)
    (folder / lost).unlink()
    with pytest.raises(MetricsError, match=rf"lacks {lost}.*\n.*facebook/dinov2-base .* --local-dir"):
        load_embedder(folder)


def test_dino_weights_with_a_missing_tensor_are_refused(dino_folder, tmp_path):
    folder = tmp_path / "dino"
    shutil.copytree(dino_folder, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["layernorm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(MetricsError, match=r"lack 1 of the model's tensors \(layernorm\.weight"):
        load_embedder(folder)


def test_missing_device_is_a_clear_error(reward_folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MetricsError, match="torch sees no CUDA device"):
        load_embedder(reward_folder, device="cuda")


def test_images_of_the_right_size_are_only_normalised():
    """Pixels 0, 51, 255 at mean and std .5: -1, -.6, 1."""
    images = np.array([0, 51, 255], np.uint8).reshape(1, 1, 1, 3)
    np.testing.assert_allclose(Preprocess((1, 1), HALF, HALF)(images).flatten(), [-1, -0.6, 1], atol=1e-6)


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
def test_resize_modes_on_a_wide_image(mode):
    """An image 8 high, 16 wide: black for 4 columns, white for 8, black for 4.

    The mode determines which part is seen at 8x8. shortest: the middle, all white. squash: 4 black columns become 2 on
    either side. longest: the image becomes 4 high, with fill above and below.
    """
    image = np.zeros((1, 8, 16, 3), np.uint8)
    image[:, :, 4:12] = 255
    seen = Preprocess((8, 8), (0, 0, 0), (1, 1, 1), mode, fill=128)(image)[0, 0]
    assert seen.shape == (8, 8)
    assert ((seen >= 0) & (seen <= 1)).all()  # bicubic overshoot is clipped
    if mode == "shortest":
        assert (seen == 1).all()
    else:
        middle = seen[2:6] if mode == "longest" else seen
        assert (middle[:, 0] < 0.1).all()
        assert (middle[:, 3:5] > 0.9).all()
        assert ((seen[:2] == 128 / 255).all() and (seen[6:] == 128 / 255).all()) == (mode == "longest")


def test_square_images_are_seen_whole():
    """A white frame of an eighth of the side survives the resize: nothing of the margin is cropped."""
    image = np.full((1, 128, 128, 3), 255, np.uint8)
    image[:, 16:-16, 16:-16] = 0
    seen = Preprocess((56, 56), (0, 0, 0), (1, 1, 1))(image)[0, 0]
    assert (seen[:5] > 0.9).all()
    assert (seen[:, -5:] > 0.9).all()
    assert (seen[12:44, 12:44] < 0.1).all()


@pytest.mark.parametrize(
    "changes", [{"resize_mode": "stretch"}, {"interpolation": "nearest"}, {"std": (0, 1, 1)}, {"mean": (0.5,)}]
)
def test_impossible_preprocessing_is_refused(changes):
    with pytest.raises(MetricsError):
        Preprocess(**{"size": (8, 8), "mean": HALF, "std": HALF, **changes})


# --- weights that do not fit ---


def _changed(folder: Path, target: Path, name: str, change) -> Path:
    copy = Path(shutil.copytree(folder, target))
    tensors = load_file(copy / name)
    change(tensors, next(k for k in sorted(tensors) if tensors[k].ndim == 2 and ".mlp." in k))
    save_file(tensors, copy / name, metadata={"format": "pt"})
    return copy


@pytest.mark.parametrize("kind", ["missing", "unexpected", "shape"])
@pytest.mark.parametrize("embedder", [OpenClipEmbedder, DinoV2Embedder])
def test_every_weight_that_does_not_fit_is_named(reward_folder, dino_folder, tmp_path, embedder, kind):
    folder, name = (reward_folder, CLIP_WEIGHTS) if embedder is OpenClipEmbedder else (dino_folder, DINO_WEIGHTS)
    named = []

    def change(tensors, key):
        named.append("strange" if kind == "unexpected" else key)
        if kind == "missing":
            del tensors[key]
        elif kind == "unexpected":
            tensors["strange.weight"] = torch.zeros(2)
        else:
            tensors[key] = torch.zeros(3, 3)

    copy = _changed(folder, tmp_path / "copy", name, change)
    with pytest.raises(MetricsError) as caught:
        embedder(copy)
    assert named[0] in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("content", "said"), [(b"version https://git-lfs.github.com/spec/v1\n", "LFS"), (None, "cut")])
@pytest.mark.parametrize("embedder", [OpenClipEmbedder, DinoV2Embedder])
def test_pointers_and_cut_files_of_scorers_are_named(reward_folder, dino_folder, tmp_path, embedder, content, said):
    folder, name = (reward_folder, CLIP_WEIGHTS) if embedder is OpenClipEmbedder else (dino_folder, DINO_WEIGHTS)
    weights = Path(shutil.copytree(folder, tmp_path / "copy")) / name
    weights.write_bytes(content if content is not None else weights.read_bytes()[:-10])
    with pytest.raises(MetricsError, match={"LFS": "Git LFS pointer", "cut": "is cut off"}[said]):
        embedder(weights.parent)
