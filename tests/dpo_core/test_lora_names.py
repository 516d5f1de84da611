"""Tests the reading of a list of LoRAs."""

from __future__ import annotations

import pytest

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.lora_names import MOST, chosen_loras

KNOWN = (
    "my_cat-000010.safetensors", "my_cat-000002.safetensors", "my_cat.safetensors", "styles/ink [v2].safetensors",
    "people\\anna.safetensors", "styles/my_cat-000004.safetensors",
)  # fmt: skip


def names(text: str) -> list[str]:
    return [name for name, _ in chosen_loras(text, KNOWN)]


def test_a_pattern_gives_its_names_in_natural_order_from_every_folder():
    wanted = ["my_cat-000002.safetensors", "my_cat-000010.safetensors", "styles/my_cat-000004.safetensors"]
    assert names("my_cat-*.safetensors") == names("my_cat-*") == wanted
    assert names("styles/my_cat-*") == wanted[2:]


def test_a_name_needs_neither_its_suffix_nor_this_systems_slash():
    assert names("my_cat") == ["my_cat.safetensors"]
    assert names("people/anna\npeople\\anna.safetensors") == ["people\\anna.safetensors"]
    assert names("styles/ink [v2]") == ["styles/ink [v2].safetensors"]


def test_strengths_comments_and_repeated_lines():
    text = "# epochs\n my_cat.safetensors : 0.8  # the usual\n\nmy_cat:0.5\nmy_cat*:0.5\n"
    assert chosen_loras(text, KNOWN) == (
        ("my_cat.safetensors", 0.8), ("my_cat.safetensors", 0.5), ("my_cat-000002.safetensors", 0.5),
        ("my_cat-000010.safetensors", 0.5), ("styles/my_cat-000004.safetensors", 0.5),
    )  # fmt: skip


@pytest.mark.parametrize("text", ["my_cat:0", "my_cat:4.5", "my_cat:-1", "my_cat:nan", "my_cat:strong", "my_cat:"])
def test_a_wrong_strength_is_refused_with_its_line(text: str):
    with pytest.raises(UserError, match=rf"'{text}' must be a number above 0 and up to 4"):
        chosen_loras(text, KNOWN)


def test_a_wrong_name_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"no LoRA is named 'my_cst'. The nearest names are my_cat.safetensors"):
        chosen_loras("my_cst", KNOWN)
    with pytest.raises(UserError, match=r"no LoRA is named 'my_dat-\*'. The nearest names are .*my_cat"):
        chosen_loras("my_cat\nmy_dat-*", KNOWN)
    with pytest.raises(UserError, match="loras folder holds none"):
        chosen_loras("a", ())
    with pytest.raises(UserError, match="loras folder holds 6 others"):
        chosen_loras("zzzzzzzz", KNOWN)


def test_nothing_and_too_much_are_refused():
    with pytest.raises(UserError, match="loras is empty"):
        chosen_loras("\n # nothing\n", KNOWN)
    with pytest.raises(UserError, match=f"names {MOST + 1} LoRAs, and at most {MOST} are compared"):
        chosen_loras("*", [f"{i}.safetensors" for i in range(MOST + 1)])
