"""What the ComfyUI backend refuses of settings that only the headless side knows; no ComfyUI is needed to say so."""

from __future__ import annotations

import pytest

from dreambooth_dpo.dpo_core.backends.comfyui.model import check_guidance
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.settings import SamplingSettings


def test_guidance_in_all_steps_is_the_hosts_own():
    check_guidance(SamplingSettings())


@pytest.mark.parametrize("until", [0.0, 0.5])
def test_guidance_in_a_part_of_the_steps_is_refused(until):
    with pytest.raises(UserError, match=rf"guidance_until is {until:g}, but .*host's own sampler.*Set it to 1"):
        check_guidance(SamplingSettings(guidance_until=until))
