"""Hypothesis strategies for what the doors are fed: mostly right, with a few things wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ...dpo_core.config import EXAMPLE, RunConfig
from ...dpo_core.settings import Settings

WORDS = ("sks", "robot", "a photo of", "{identifier}", "{class_noun}", "{identifier} {class_noun}", "{other}", "[", "]")
MORE_WORDS = (
    "[sand]",
    "#",
    "",
    "in a café",
    "犬",
    "{",
    "}",
    "(x:1.3)",
    "<lora:a:1>",
    "\t",
    "-" * 400,
    "\x00",
    "\u2028",
)
SUFFIXES = ("png", "jpg", "jpeg", "webp", "bmp", "tiff", "gif", "jfif", "heic", "avif", "txt", "caption", "npz", "")
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I", "F", "CMYK", "YCbCr", "LAB", "HSV")
LAYERS = (
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
    "mid_block.attentions.0.transformer_blocks.0.attn2.to_k",
    "text_model.encoder.layers.0.self_attn.q_proj",
    "conv_in",
    "nowhere",
    "",
)
PREFIXES = ("lora_unet_", "lora_te_", "unet.", "text_encoder.", "transformer.", "base_model.model.", "")
PARTS = (
    ".lora_down.weight", ".lora_up.weight", ".lora_A.weight", ".lora_B.weight", ".alpha", ".dora_scale",
    ".lora_mid.weight", ".lora.down.weight", ".lora.up.weight", ".hada_w1_a", ".lokr_w1", ".diff",
    ".diff_b", ".lora_magnitude_vector",
    ".processor.to_q_lora.down.weight", ".processor.to_q_lora.up.weight", ".weight", "",
)  # fmt: skip

numbers = st.one_of(
    st.integers(-3, 20),
    st.sampled_from([0, 1, 8, 64, 2**31 - 1, 2**31, 2**63, 10**30, -1]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0.0, 1e-30, 0.5, 1.0, 1e30]),
)
scalars = st.one_of(
    st.none(), st.booleans(), numbers, st.text(max_size=8), st.sampled_from(["auto", "best", "cpu", "~"])
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip


def fields(kind: type[Settings] = RunConfig, at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of every setting of a config, sections too."""
    for name, field in kind.model_fields.items():
        yield (*at, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            yield from fields(field.annotation, (*at, name))


FIELDS = tuple(fields())


@st.composite
def configs(draw) -> str:
    """A YAML text: the example with up to four settings changed, removed or added; now and then any text."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.one_of(st.text(max_size=80), values.map(lambda v: json.dumps(v, ensure_ascii=False))))
    config: dict[str, Any] = json.loads(json.dumps(EXAMPLE))
    for _ in range(draw(st.sampled_from((0, 1, 1, 1, 2, 4)))):
        *sections, name = draw(st.sampled_from(FIELDS))
        place = config
        for section in sections:
            if not isinstance(place.get(section), dict):
                place[section] = {}
            place = place[section]
        what = draw(st.sampled_from(("change", "change", "change", "remove", "misspell")))
        if what == "remove":
            place.pop(name, None)
        else:
            place[name + ("x" if what == "misspell" else "")] = draw(values)
    text = json.dumps(config, ensure_ascii=False)
    text = text.replace("NaN", ".nan").replace("Infinity", ".inf")
    return draw(st.sampled_from((*(text,) * 9, text + "\n" + text, text.replace("{", "{\t", 1), text[:-1])))


prompt_lines = st.lists(st.sampled_from(WORDS + MORE_WORDS) | st.text(max_size=6), max_size=6).map(" ".join)
good_lines = st.sampled_from([f"[{c}] a {{identifier}} {{class_noun}} {w}" for c in "abc" for w in ("x", "y", "z")])


def odd_lines(most: int) -> st.SearchStrategy[list[str]]:
    """Up to `most` lines that may be no right prompts."""
    return st.lists(prompt_lines, max_size=most)


@st.composite
def prompt_files(draw) -> bytes:
    """The bytes of a prompt file: right lines, odd lines, another encoding, or any bytes."""
    least = draw(st.sampled_from((6, 6, 6, 0)))
    lines = [
        *draw(st.lists(good_lines, min_size=least, max_size=9, unique=True)),
        *draw(st.sampled_from((0, 0, 1, 3)).flatmap(odd_lines)),
    ]
    text = draw(st.sampled_from(("\n", "\r\n", "\r"))).join(lines)
    encoding = draw(st.sampled_from((*("utf-8",) * 5, "utf-8-sig", "utf-16", "latin-1")))
    whole = text.encode(encoding, "replace")
    return draw(st.sampled_from((*(whole,) * 6, b"\xff\x00\x01")))


odd_words = st.sampled_from(["sks", "robot", "", " ", "a b", "sks robot", "(", "\\1", "犬"]) | st.text(max_size=6)


def words(right: tuple[str, ...]) -> st.SearchStrategy[str]:
    """One of the right words three times of four, else an odd one."""
    return st.sampled_from((True, True, True, False)).flatmap(
        lambda good: st.sampled_from(right) if good else odd_words
    )


@st.composite
def pictures(draw) -> tuple[str, bytes]:
    """(file name, bytes): a picture of any mode, size and format; then whole, cut off, spoilt, empty, or no picture."""
    import io

    from PIL import Image

    stem = draw(st.sampled_from((*"aaabbb", "a_mask", "a-masklabel", ".a", "ü 犬", "a.b")))
    suffix = draw(st.sampled_from((*("png",) * 9, *SUFFIXES)))
    name = f"{stem}.{draw(st.sampled_from((suffix, suffix.upper())))}".rstrip(".")
    width, height = draw(st.sampled_from((40, 40, 40, 1, 23))), draw(st.sampled_from((17, 17, 17, 1, 2, 40)))
    mode, seed = draw(st.sampled_from(MODES)), draw(st.integers(0, 99))
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)
    fill = draw(st.sampled_from((None, None, 0, 255)))
    if fill is not None:
        noise[:] = fill
    picture = Image.fromarray(noise, "RGBA")
    file = io.BytesIO()
    try:
        if mode in ("I;16", "F", "I"):
            kind = {"I;16": np.uint16, "F": np.float32, "I": np.int32}[mode]
            picture = Image.fromarray(noise[..., 0].astype(kind) * 257)
        else:
            picture = (
                picture.convert(mode)
                if mode in ("RGBA", "RGB", "L", "1", "P", "LA")
                else picture.convert("RGB").convert(mode)
                if mode != "LAB"
                else picture.convert("RGB")
            )
        form = {"jpg": "JPEG", "jpeg": "JPEG", "jfif": "JPEG", "": "PNG"}.get(suffix, suffix.upper())
        picture.save(file, form if form in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF") else "PNG")
    except (OSError, ValueError, KeyError):  # no such mode in that format: a PNG under that name
        file = io.BytesIO()
        Image.fromarray(noise, "RGBA").save(file, "PNG")
    data = file.getvalue()
    if draw(st.sampled_from((True, False))):  # half of a picture dark: as a mask, a right one
        picture = Image.fromarray(np.where(np.arange(width)[None, :, None] < width // 2, np.uint8(20), noise), "RGBA")
    harm = draw(st.sampled_from(("none",) * 12 + ("cut", "spoilt", "empty", "text")))
    at = draw(st.integers(0, max(0, len(data) - 1)))
    spoilt = data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
    return name, {"cut": data[:at], "spoilt": spoilt, "empty": b"", "text": b"<html>404</html>"}.get(harm, data)


@st.composite
def loras(draw) -> tuple[str, bytes]:
    """(file name, bytes) of a LoRA: keys of many trainers, shapes that fit or not, a header, cut off, or no LoRA."""
    import torch
    from safetensors.torch import save

    tensors = {}
    if draw(st.sampled_from((True, True, False))):  # a right layer beside whatever follows
        layer = "lora_unet_" + LAYERS[1]
        tensors = {f"{layer}.lora_down.weight": torch.ones(4, 64), f"{layer}.lora_up.weight": torch.ones(64, 4)}
    for _ in range(draw(st.integers(0, 3))):
        prefix, layer = draw(st.sampled_from(PREFIXES)), draw(st.sampled_from(LAYERS))
        shape = draw(
            st.sampled_from(((), (1,), (4,), (0,), (4, 32), (32, 4), (4, 64), (64, 4), (4, 128), (4, 32, 1, 1)))
        )
        kind = draw(st.sampled_from((torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool)))
        fill = draw(st.sampled_from((0.0, 0.01, float("nan"), float("inf"), 1e30)))
        whole = torch.full(shape, fill if kind.is_floating_point else 1).to(kind)
        for part in draw(st.lists(st.sampled_from(PARTS), min_size=1, max_size=3)):
            tensors[f"{prefix}{layer}{part}" or "x"] = whole.clone()
    header = draw(st.dictionaries(
        st.sampled_from(("lora_adapter_metadata", "ss_network_alpha", "format", "modelspec.architecture")),
        st.sampled_from(("{", "{}", '{"unet.r": 4, "unet.lora_alpha": 8}', '{"r": "x"}', "[]", "pt", "8.0", "x")),
        max_size=2,
    ))  # fmt: skip
    data = save(tensors, header or None)
    name = draw(st.sampled_from(("a.safetensors",) * 4 + ("a.pt", "a.bin", "a.ckpt", "a")))
    harm = draw(st.sampled_from(("none",) * 6 + ("cut", "empty", "pointer", "long")))
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    other = {"cut": data[: len(data) // 2], "empty": b"", "pointer": pointer, "long": b"\xff" * 64}
    return name, other.get(harm, data)


strength_texts = st.one_of(
    st.text(max_size=12),
    st.lists(numbers.map(str) | st.sampled_from(["0", "0.5", "1", "x", "1e1"]), max_size=6).map(", ".join),
)
