"""The table of families, and how settings that are auto take its values."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.families import adapter_for, family_of, sampling_for, table, training_for
from dreambooth_dpo.dpo_core.settings import AdapterSettings, SamplingSettings, TrainSettings

LATENT = (16, 128, 128)
AUTO = TrainSettings(learning_rate=None, beta=None, auto_beta="auto", time_sampling="auto")


def test_every_value_has_a_source_and_is_a_valid_setting() -> None:
    families, sources = table()
    assert len({f.name for f in families}) == len(families)
    for family in families:
        for name, value in family:
            if name in AdapterSettings.model_fields | SamplingSettings.model_fields | TrainSettings.model_fields:
                assert value.source in sources, (family.name, name)
        assert family.time_shift.source in sources and family.sampler.source in sources
        sampling_for(SamplingSettings(steps=None, guidance=None, width=None, height=None), family)
        adapter_for(AdapterSettings(rank=None, alpha=None, targets="auto"), family)
        training_for(AUTO, family, LATENT)


def test_the_table_names_each_class_once() -> None:
    names = [(c, tuple(sorted(f.match))) for f in table()[0] for c in (*f.comfyui, *f.diffusers)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("name", "kind", "config", "found"),
    [
        ("SD15", "eps", {}, "SD 1.5"),
        ("ZImage", "flow", {}, "Z-Image"),
        ("Flux2", "flow", {"guidance_embed": True}, "Flux.2 dev"),
        ("Flux2", "flow", {"guidance_embed": False}, "Flux.2 klein"),
        ("StableDiffusionXLPipeline", "eps", {}, "SDXL"),
        ("NewFlowModel", "flow", {}, "other flow model"),
        ("NewUNet", "v", {}, "other eps or v model"),
    ],
)
def test_a_model_is_known_by_its_class_and_an_unknown_one_by_its_kind(name, kind, config, found) -> None:
    assert family_of(name, kind, config).name == found


def test_a_setting_that_is_given_stays() -> None:
    family = family_of("ZImage", "flow")
    assert sampling_for(SamplingSettings(), family) == SamplingSettings()
    assert adapter_for(AdapterSettings(), family) == AdapterSettings()
    assert training_for(TrainSettings(), family, LATENT) == TrainSettings()


def test_auto_takes_the_familys_values() -> None:
    """Z-Image by musubi: logit-normal, shift 2, rate 1e-4, rank 32; by ComfyUI: 25 steps, cfg 4, 1024 pixels."""
    family = family_of("ZImage", "flow")
    drawn = sampling_for(SamplingSettings(steps=None, guidance=None, width=None, height=None), family)
    assert (drawn.steps, drawn.guidance, drawn.width, drawn.height) == (25, 4.0, 1024, 1024)
    adapter = adapter_for(AdapterSettings(rank=None, alpha=None, targets="auto"), family)
    assert (adapter.rank, adapter.alpha, adapter.targets) == (32, 32.0, "all")
    train = training_for(AUTO, family, LATENT)
    assert (train.time_sampling, train.time_shift, train.learning_rate) == ("logit_normal", 2.0, 1e-4)
    assert train.auto_beta == "on" and train.beta is None


def test_an_alpha_that_is_auto_is_the_rank_that_is_given() -> None:
    adapter = adapter_for(AdapterSettings(rank=4, alpha=None), family_of("SD15", "eps"))
    assert (adapter.rank, adapter.alpha) == (4, 4.0)


def test_a_shift_by_size_follows_fluxs_rule() -> None:
    """Flux.1 has a token for 2 x 2 latents: 1024 pixels are 64 x 64 = 4096 tokens, so exp(1.15) = 3.158; 256 pixels
    are 256 tokens, so exp(0.5) = 1.649. Flux.2's latents are its tokens: 64 x 64 are 4096.
    """
    flux, flux2 = family_of("Flux", "flow"), family_of("Flux2", "flow")
    assert training_for(AUTO, flux, (16, 128, 128)).time_shift == pytest.approx(math.exp(1.15))
    assert training_for(AUTO, flux, (16, 32, 32)).time_shift == pytest.approx(math.exp(0.5))
    assert training_for(AUTO, flux2, (128, 64, 64)).time_shift == pytest.approx(math.exp(1.15))
    assert training_for(AUTO.model_copy(update={"time_shift": 1.5}), flux, LATENT).time_shift == 1.5


def test_krea_2s_shift_is_about_2_5_at_1024_pixels() -> None:
    """musubi's docs: 2.5 at 1024 x 1024. mu = 0.5 + 0.65 (4096 - 256) / (6400 - 256) = 0.90625; exp = 2.475."""
    assert training_for(AUTO, family_of("Krea2", "flow"), (16, 1, 128, 128)).time_shift == pytest.approx(
        2.475, abs=1e-3
    )


def test_a_trusted_beta_is_taken_and_another_objective_has_its_own() -> None:
    sdxl = family_of("SDXL", "eps")
    assert training_for(AUTO, sdxl, LATENT).beta == 5000 and training_for(AUTO, sdxl, LATENT).auto_beta == "off"
    ipo = AUTO.model_copy(update={"objective": "ipo"})
    assert training_for(ipo, sdxl, LATENT).beta == 500
    group = {name: AUTO.model_copy(update={"objective": name}) for name in ("dgpo", "nft")}
    assert training_for(group["dgpo"], sdxl, LATENT).beta == 5000  # on dpo's scale
    for family in (sdxl, family_of("Flux", "flow")):
        assert training_for(group["nft"], family, LATENT).beta == 1


def test_beta_is_adapted_where_the_user_says_so() -> None:
    on = training_for(TrainSettings(auto_beta="on"), family_of("SD15", "eps"), LATENT)
    assert on.auto_beta == "on"


@pytest.mark.parametrize(
    ("change", "said"),
    [({"objective": "ipo"}, "no known beta for the objective ipo"), ({"auto_beta": "off"}, "auto_beta is off")],
)
def test_a_beta_that_nobody_knows_is_asked_for(change, said) -> None:
    with pytest.raises(UserError, match=said):
        training_for(AUTO.model_copy(update=change), family_of("Flux", "flow"), LATENT)


def test_quick_drafts_are_checked_against_the_familys_steps() -> None:
    settings = SamplingSettings(steps=None, draft_steps=25)
    with pytest.raises(ValidationError, match="draft_steps 25 must be below steps 25"):
        sampling_for(settings, family_of("ZImage", "flow"))


def test_rounds_from_before_these_settings_are_recognised() -> None:
    """The description of a round without them is what it was before they existed."""
    described = TrainSettings().described()
    assert not {"auto_beta", "beta_floor", "beta_ceiling", "time_sampling", "time_shift", "memory"} & described.keys()
    assert described == training_for(TrainSettings(), family_of("SD15", "eps"), LATENT).described()
    assert TrainSettings(auto_beta="on").described()["beta_floor"] == 100
    assert TrainSettings(time_sampling="uniform").described()["time_sampling"] == "uniform"
