"""Tests the questions of a prompt, and the score of their answers, with answers that are written down."""

from __future__ import annotations

import numpy as np
import pytest

from dreambooth_dpo.dpo_core.concept import Concept
from dreambooth_dpo.metrics.answers import QuestionScorer
from dreambooth_dpo.metrics.embedders import OpenClipEmbedder
from dreambooth_dpo.metrics.errors import MetricsError
from dreambooth_dpo.metrics.questions import parts_of, questions_of
from dreambooth_dpo.metrics.sets import concept_scorers, reward_scorers

IMAGES = np.zeros((3, 8, 8, 3), np.uint8)
IMAGES[1], IMAGES[2] = 100, 200


class Written:
    """Says yes with probability (brightness + bonus of the question) / 400, no with the rest of 0.8."""

    name = fingerprint = "written"

    def __init__(self, bonus: dict[str, int] | None = None, mass: float = 0.8) -> None:
        self.bonus, self.mass, self.asked = bonus or {}, mass, []

    def answers(self, images: np.ndarray, question: str) -> np.ndarray:
        self.asked.append((question, len(images)))
        more = next((value for part, value in self.bonus.items() if f'"{part}"' in question), 100)
        yes = self.mass * (images[:, 0, 0, 0].astype(float) + more) / 400
        with np.errstate(divide="ignore"):
            return np.log(np.stack([yes, self.mass - yes], axis=1))


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("a photo of a red robot wearing a blue hat", ("a red robot", "a blue hat")),
        ("Red and white mushroom on a mossy log", ("Red and white mushroom",)),
        (
            "the black-and-white cat, an orange  leather armchair",
            ("the black-and-white cat", "an orange leather armchair"),
        ),
        ("a black and white cat beside yellow flowers", ("a black and white cat", "yellow flowers")),
        ("a robot that is red", ()),
        ("a robot in red and blue", ()),
        ("a robot on a green background", ()),
        ("a redwood tree, an orange, a golden retriever", ("a golden retriever",)),
        ("a red hat, a red hat, blue cup, green cup, pink cup", ("a red hat", "blue cup", "green cup", "pink cup")),
        ("a dog in the snow", ()),
    ],
)
def test_parts_are_colours_with_what_they_colour(prompt: str, parts: tuple[str, ...]):
    assert parts_of(prompt) == parts


def test_the_whole_prompt_is_always_asked_first_and_nothing_twice():
    assert questions_of("a  red robot in snow") == (
        'Does this figure show "a red robot in snow"? Please answer yes or no.',
        'Does this figure show "a red robot"? Please answer yes or no.',
    )
    assert len(questions_of("a red robot")) == len(questions_of("a red robot in snow", parts=False)) == 1


def test_a_prompt_counts_by_the_mean_of_its_questions():
    """Whole: P(yes) = .25, .5, .75; the part (bonus 150): .375, .625, .875 of the first prompt's two images."""
    answerer = Written({"a red robot": 150})
    scorer = QuestionScorer(answerer, lambda p: p.replace("sks ", ""))
    found = scorer.score(IMAGES, ["a red sks robot in snow", "a dog", "a red sks robot in snow"])
    np.testing.assert_allclose(found, [(0.25 + 0.375) / 2, 0.5, (0.75 + 0.875) / 2])
    assert [n for _, n in answerer.asked] == [2, 2, 1]  # once a question, for all of its images
    odds = QuestionScorer(Written(), str, unit="log_odds").score(IMAGES, ["a dog"] * 3)
    np.testing.assert_allclose(odds, [np.log(1 / 3), 0, np.log(3)], atol=1e-12)
    assert len(scorer.score(IMAGES[:0], [])) == 0


def test_fingerprint_depends_on_parts_unit_and_identifier():
    made = [{}, {"parts": False}, {"unit": "log_odds"}, {"identifier": "sks"}]
    assert len({QuestionScorer(Written(), str, **more).fingerprint for more in made}) == 4


def test_a_model_that_answers_otherwise_is_refused():
    with pytest.raises(MetricsError, match=r"written begins 0\.10% of its answers with yes or no.*does not think"):
        QuestionScorer(Written(mass=0.001), str).score(IMAGES, ["a dog"] * 3)
    with pytest.raises(MetricsError, match="gave an answer that is not finite"):
        QuestionScorer(Written(mass=np.nan), str).score(IMAGES, ["a dog"] * 3)
    with pytest.raises(MetricsError, match="3 images for 1 prompts"):
        QuestionScorer(Written(), str).score(IMAGES, ["a dog"])
    with pytest.raises(MetricsError, match="unit of the answers is 'odds'"):
        QuestionScorer(Written(), str, unit="odds")


def test_an_answerer_judges_alignment_alone_or_is_a_further_reward(reward_folder):
    clip, concept = OpenClipEmbedder(reward_folder), Concept("sks", "robot", np.stack([IMAGES[1]] * 2))
    found = concept_scorers(clip, Written(), concept)
    assert [s.name for s in found.judges] == ["judge_alignment", "diversity", "saturation"] and found.doubts == ()
    assert isinstance(found.judges[0], QuestionScorer)
    names = [s.name for s in reward_scorers([clip, Written()], concept)]
    assert names == ["fidelity", "alignment", "alignment_2"]
    with pytest.raises(MetricsError, match="written answers questions and cannot score fidelity"):
        reward_scorers([Written()], concept)
    with pytest.raises(MetricsError, match=r"the judge \(written\) has the same weights"):
        concept_scorers([clip, Written()], Written(), concept)
