"""Tests of rewards that are wrong on purpose: their formula, and when a run counts as failed."""

from __future__ import annotations

import numpy as np
import pytest

from dreambooth_dpo.benchmarks.traps.__main__ import fails
from dreambooth_dpo.benchmarks.traps.faults import FAULTS, Faulty, features
from dreambooth_dpo.metrics.embedders import OpenClipEmbedder
from dreambooth_dpo.toybox.concepts import concept_from_seed
from dreambooth_dpo.toybox.models import weights_folder
from dreambooth_dpo.toybox.world import Placement, Scene, render

PROMPTS, PROMPT_OF = ["a", "a", "b", "b"], np.asarray([0, 0, 1, 1])
IMAGES = np.stack([np.full((2, 2, 3), v, np.uint8) for v in (0, 2, 0, 2)])


class Honest:
    name, fingerprint = "fidelity", "honest"

    def score(self, images: np.ndarray, prompts) -> np.ndarray:
        return images[:, 0, 0, 0] / 4.0


def _faulty(strength: float, feature) -> Faulty:
    return Faulty(Honest(), feature, strength, "made", IMAGES, PROMPTS, PROMPT_OF)


def test_a_fault_adds_its_feature_in_units_of_the_honest_spread():
    """Honest 0 .5 0 .5: spread .25. Feature 4 0 4 0: mean 2, spread 2. Strength 2: unit 2 * .25 / 2 = .25.

    0 + .25 (4 - 2) = .5, .5 + .25 (0 - 2) = 0; at strength 1 (unit .125) both are .25: fault and honest score say the
    opposite. At strength 16 (unit 2) the sums 4 and -3.5 are beyond a cosine, and are cut to 1 and -1.
    """
    feature = lambda images, prompts: 4.0 - 2 * images[:, 0, 0, 0]  # noqa: E731
    assert _faulty(2, feature).score(IMAGES, PROMPTS).tolist() == [0.5, 0, 0.5, 0]
    assert _faulty(1, feature).score(IMAGES, PROMPTS).tolist() == [0.25] * 4
    assert _faulty(16, feature).score(IMAGES, PROMPTS).tolist() == [1, -1, 1, -1]
    assert _faulty(2, feature).fingerprint != _faulty(1, feature).fingerprint


def test_a_feature_that_does_not_vary_is_refused():
    with pytest.raises(ValueError, match="cannot mislead"):
        _faulty(1, lambda images, prompts: np.ones(len(images)))


def test_features_measure_what_they_are_named_by():
    """A larger subject, a hat of the colour paid for, stronger colours, the photos' background; noise by image."""
    toy = concept_from_seed(0)
    known = features(toy, OpenClipEmbedder(weights_folder("reward")))
    assert {feature for fault in FAULTS.values() for _, feature in fault.features} == set(known)

    def drawn(scale: float, hat: str | None) -> np.ndarray:
        scene = Scene(toy.noun, toy.body, toy.belly, "snow" if toy.background != "snow" else "sand", hat)
        return render(scene, 0, Placement(32.0, 38.0, scale))

    images = np.stack([drawn(19.0, None), drawn(23.0, "blue"), toy.references[0]])
    size, hat, place = (known[n](images, [""] * 3) for n in ("size", "hat", "place"))
    assert size[1] > size[0] and hat.tolist() == [0, 1, 0] and place[2] > max(place[:2])
    pale = (images // 2 + 64).astype(np.uint8)
    assert (known["saturation"](images, [""] * 3) > known["saturation"](pale, [""] * 3)).all()
    noise = known["noise"](images, [""] * 3)
    assert len(set(noise)) == 3 and known["noise"](images[1:2], [""])[0] == noise[1]


@pytest.mark.parametrize(
    ("end", "status", "headline", "failed"),
    [
        (0.37, "better", "It got better.", True),
        (0.39, "better", "It got better.", False),
        (0.2, "hacked", "looks hacked", False),
        (0.2, "better", "It got better, but the judge shows no gain.", False),
        (0.2, "better", "It got better: alignment rose, but the colours became more saturated.", False),
    ],
)
def test_a_run_fails_that_is_worse_by_more_than_two_points_unsaid(end, status, headline, failed):
    assert fails({"start": 0.4, "end": end, "status": status, "headline": headline}) == failed


def test_a_run_without_a_judge_has_the_fault_of_both():
    """What is left measures copies, variety and the truth, of which a user has no oracle."""
    from dreambooth_dpo.benchmarks.traps.runs import without_judge
    from dreambooth_dpo.toybox.run import toy_scorers

    judges = [s.name for s in toy_scorers(concept_from_seed(0)).judges]
    left = [s.name for s in without_judge(toy_scorers(concept_from_seed(0)).judges)]
    assert set(judges) - set(left) == {"judge_fidelity", "judge_alignment", "judge_background"}
    assert FAULTS["unjudged"].features == FAULTS["both"].features and not FAULTS["unjudged"].judged
    assert all(fault.judged for name, fault in FAULTS.items() if name != "unjudged")
