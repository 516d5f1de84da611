"""The training benchmark: its arithmetic, the shapes of its models, and one short run of both sides."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from dreambooth_dpo.benchmarks.training import __main__ as training
from dreambooth_dpo.benchmarks.training.__main__ import compare, spread_bank
from dreambooth_dpo.benchmarks.training.diffusers_recipe import DiffusersRecipe
from dreambooth_dpo.benchmarks.training.growth import axes_of, growth, growth_figure
from dreambooth_dpo.benchmarks.training.models import subject
from dreambooth_dpo.benchmarks.training.worker import PHASES, Task, count_flops, kept_bytes, measure
from dreambooth_dpo.dpo_core.backends.diffusers.random_models import UNETS, HashTokenizer, unet, unet_arguments
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.settings import AdapterSettings, TrainSettings

TINY = Task("toybox", "ours", 32, 1, 1, "cpu", rank=2, warm_up=0)


def _row(seconds: float, bank: float = 0.0, peak: int = 100, resting: int = 60) -> dict:
    return {
        "seconds_per_step": seconds, "pairs_per_second": 2 / seconds, "bank_seconds_per_draw": bank,
        "peak_bytes": peak, "resting_bytes": resting,
    }  # fmt: skip


def test_a_banks_cost_is_spread_over_its_round() -> None:
    """10 steps of 4 pairs at 0.5 s a pair are 20 s; 5 pairs with 2 draws of 1 s are 10 s more.

    No more draws than visits are filled.
    """
    assert spread_bank(_row(1.0, 1.0), 2, 2, pairs=5, steps=10, size=4) == pytest.approx(40 / 30)
    assert spread_bank(_row(1.0, 1.0), 2, 100, pairs=5, steps=10, size=4) == pytest.approx(40 / 60)
    assert spread_bank(_row(1.0), 2, 0) == pytest.approx(2.0)


def test_ratios_are_to_the_recipe() -> None:
    rows = {"recipe": _row(4.0), "plain": _row(2.0, peak=80)}
    compare(rows, 2)
    assert rows["recipe"]["speed_ratio"] == rows["recipe"]["memory_ratio"] == 1
    assert (rows["plain"]["speed_ratio"], rows["plain"]["memory_ratio"], rows["plain"]["added_memory_ratio"]) == (
        2.0,
        0.8,
        0.5,
    )


def test_growth_measures_every_axis_and_draws_it(tmp_path) -> None:
    """Of seconds = resolution^2 * batch, whatever the rank, the powers are 2, 1 and 0."""
    found = growth(TINY, lambda t: {"seconds_per_step": t.resolution**2 * t.batch * 1e-3}, tmp_path)
    assert [found[a]["exponent"] for a in axes_of(TINY)] == pytest.approx([2, 0, 1], abs=1e-9)
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".png"]
    assert len(growth_figure(found, "title").axes) == 3


def test_full_sizes_have_their_weights() -> None:
    with torch.device("meta"):
        millions = {name: round(sum(p.numel() for p in unet(name).parameters()) / 1e6) for name in UNETS}
    assert millions == {"medium": 92, "sd15": 860, "sdxl": 2567}


def test_prompts_become_ids_of_one_length() -> None:
    ids = HashTokenizer()(["a robot", "word " * 200]).input_ids
    assert (
        ids.shape == (2, 77)
        and int(ids.max()) < 49408
        and HashTokenizer()("a robot").input_ids.tolist() == [ids[0].tolist()]
    )


def test_sdxls_additions_stand_apart() -> None:
    found = unet_arguments({"encoder_hidden_states": 1, "text_embeds": 2, "time_ids": 3})
    assert found == {"encoder_hidden_states": 1, "added_cond_kwargs": {"text_embeds": 2, "time_ids": 3}}
    assert unet_arguments({"encoder_hidden_states": 1}) == {"encoder_hidden_states": 1}


def test_wrong_wishes_are_refused() -> None:
    with pytest.raises(UserError, match="no model 'huge'"):
        subject("huge", 64, "cpu")
    with pytest.raises(UserError, match="resolution 40 is no multiple of 16"):
        subject("toybox", 40, "cpu")


def test_operations_of_a_product_by_hand() -> None:
    assert count_flops(lambda: torch.ones(3, 5) @ torch.ones(5, 7)) == 2 * 3 * 5 * 7


def test_the_recipes_loss_by_hand() -> None:
    """beta 2: inside = -((1 - 3) - (2 - 2)) = 2 of one pair, 0 of the other; -(log sigmoid(2) + log sigmoid(0)) / 2."""
    recipe = SimpleNamespace(settings=SimpleNamespace(beta=2.0))
    loss = DiffusersRecipe.loss(recipe, torch.tensor([1.0, 5.0, 3.0, 5.0]), torch.tensor([2.0, 1.0, 2.0, 1.0]))
    assert float(loss) == pytest.approx((0.1269280 + 0.6931472) / 2, rel=1e-5)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_recipes_weights_are_of_its_precision(precision: str, dtype: torch.dtype) -> None:
    """Frozen and trained ones, as the example's are; a step changes the LoRA alone, and its loss before it is log 2,
    for B is 0.
    """
    found = subject("toybox", 32, "cpu")
    settings = TrainSettings(batch_size=2, precision=precision, learning_rate=1e-3)
    recipe = DiffusersRecipe(
        found, AdapterSettings(rank=2), settings, torch.rand(2, 6, 32, 32) * 2 - 1, torch.ones(2, 24, dtype=torch.long)
    )
    parts = (found.pipe.unet, found.pipe.vae, found.pipe.text_encoder)
    trained = {id(p) for p in recipe.parameters}
    frozen = [p for part in parts for p in part.parameters() if id(p) not in trained]
    assert frozen and {p.dtype for p in frozen} == {dtype} and not any(p.requires_grad for p in frozen)
    assert trained and {p.dtype for p in recipe.parameters} == {dtype}
    before = [[p.detach().clone() for p in group] for group in (frozen, recipe.parameters)]
    # Both forwards are the same numbers, so the logits are 0 exactly, in either precision.
    assert float(recipe.step(0)) == pytest.approx(0.6931472)
    assert all(torch.equal(a, b) for a, b in zip(before[0], frozen, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(before[1], recipe.parameters, strict=True))
    assert torch.isfinite(recipe.step(1))


@pytest.mark.parametrize("variant", ["ours", "peer"])
def test_a_short_run_of_both_sides(variant: str) -> None:
    row = measure(
        Task(**{**TINY.__dict__, "variant": variant, "settings": {"reference_bank": 2} if variant == "ours" else {}})
    )
    assert row["seconds_per_step"] > 0 and row["pairs_per_second"] == pytest.approx(1 / row["seconds_per_step"])
    assert row["peak_bytes"] >= row["resting_bytes"] > 0
    assert set(row["phases"]) == set(PHASES) and row["phases"]["backward"] > 0
    assert (row["bank_seconds_per_draw"] > 0) == (variant == "ours")


def test_what_is_kept_by_hand():
    """x * x keeps x, 40 bytes, twice; exp keeps its result, 40 bytes; a weight is none of it."""
    linear = torch.nn.Linear(10, 10, bias=False).requires_grad_(False)
    x = torch.randn(1, 10, requires_grad=True)
    assert kept_bytes(lambda: (x * x).exp().sum(), linear) == 80
    assert kept_bytes(lambda: linear(x).sum(), linear) == 0
    with torch.no_grad():
        assert kept_bytes(lambda: (x * x).exp(), linear) == 0


def test_a_variant_that_was_killed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last line that it had printed is a warning, and not the reason."""
    ended = SimpleNamespace(returncode=-9, stdout="", stderr="UserWarning: something else\n")
    monkeypatch.setattr(training.subprocess, "run", lambda *_a, **_k: ended)
    with pytest.raises(UserError, match="ended by signal 9; a system out of memory sends 9. Take a smaller"):
        training.run(Task("toybox", "peer", 64, 1, 1, "cpu", 8, "attention", {}))
