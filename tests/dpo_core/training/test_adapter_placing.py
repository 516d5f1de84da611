"""The adapter is applied once, by hooks or merged, never both."""

from __future__ import annotations

import pytest
from models import tiny_text_to_image

from dreambooth_dpo.dpo_core.settings import AdapterSettings
from dreambooth_dpo.dpo_core.training.adapter import Adapter


def test_contexts_do_not_nest_and_a_merged_adapter_cannot_be_switched():
    adapter = Adapter(tiny_text_to_image().denoiser, AdapterSettings(rank=2))
    with adapter.merged():
        with pytest.raises(RuntimeError, match="do not nest"), adapter.attached():
            pass
        with pytest.raises(RuntimeError, match="cannot be switched"), adapter.reference():
            pass
    with adapter.attached():
        with pytest.raises(RuntimeError, match="do not nest"), adapter.attached():
            pass
        with adapter.reference():
            pass
    with adapter.attached():
        pass
