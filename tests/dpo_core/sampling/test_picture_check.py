"""The picture check: pictures of one colour, identical pictures, scores that do not vary."""

from __future__ import annotations

import numpy as np
import pytest

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.records import Candidate
from dreambooth_dpo.dpo_core.sampling.picture_check import PictureCheck, check_first, check_pixels, check_scores, flat


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)


def members(count: int, per_prompt: int = 2) -> list[Candidate]:
    return [Candidate(i, i // per_prompt, f"prompt {i // per_prompt}", i, 0, i) for i in range(count)]


def looked(planned: list[Candidate], pictures: np.ndarray) -> PictureCheck:
    check = PictureCheck()
    check.look(planned, pictures)
    return check


def test_flat_allows_a_hundredth_of_the_pixels_and_eight_levels():
    """Of 256 pixels, 2 of another colour are 0.8 %, 3 are 1.2 %."""
    pictures = np.full((4, 16, 16, 3), 100, np.uint8)
    pictures[0, ::2] = 108
    pictures[1, 0, :2] = 0
    pictures[2, 0, :3] = 0
    pictures[3, :, :4] = [100, 100, 130]
    assert flat(pictures).tolist() == [True, True, False, False]


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (90, 10, 200)])
def test_a_set_of_mostly_flat_pictures_is_an_error(colour):
    pictures = noise(4)
    pictures[1:] = colour
    with pytest.raises(UserError, match=r"3 of 4 pictures are nearly all of one colour.*VAE"):
        looked(members(4), pictures).refuse()


def test_a_few_flat_pictures_are_counted_and_accepted():
    pictures = noise(4)
    pictures[2:] = 0
    check = looked(members(4), pictures)
    check.refuse()
    assert check.seen == 4 and check.flat == [2, 3]


def test_the_same_picture_for_every_seed_is_an_error():
    with pytest.raises(UserError, match="are identical, though their seeds differ"):
        looked(members(4), noise(2).repeat(2, axis=0)).refuse()
    mixed = noise(2).repeat(2, axis=0)
    mixed[3] = noise(1, seed=5)[0]
    looked(members(4), mixed).refuse()
    looked(members(4, per_prompt=1), noise(1).repeat(4, axis=0)).refuse()  # one picture per prompt: not checked


def test_scores_that_differ_only_by_rounding_are_an_error():
    prompt_of = np.asarray([0, 0, 1, 1])
    with pytest.raises(
        UserError,
        match=r"the fidelity scores of each prompt's candidates are all the same \(about 0.7, by clip, dino\)",
    ):
        check_scores(np.asarray([0.7, 0.7 + 1e-7, 0.3, 0.3]), prompt_of, "fidelity", ("clip", "dino"))
    check_scores(np.asarray([0.7, 0.701, 0.3, 0.3]), prompt_of, "fidelity", ("clip",))
    check_scores(
        np.asarray([0.7, 0.7]), np.asarray([0, 1]), "fidelity", ("clip",)
    )  # one candidate per prompt: the pair rule refuses it
    check_scores(np.asarray([20.0, 20.01]), np.asarray([0, 0]), "alignment", ("pick",))


def test_the_message_says_how_little_the_scores_differ():
    with pytest.raises(UserError, match=r"by clip\), so no candidate is better than another: they differ by 1e-07 at"):
        check_scores(np.asarray([0.7, 0.7 + 1e-7]), np.asarray([0, 0]), "fidelity", ("clip",))


def test_the_first_pictures_of_a_run_must_not_be_of_one_colour():
    with pytest.raises(UserError, match=r"all pixels of the first 2 pictures have one colour .*blue 0, 0, 0\).*VAE"):
        check_first(np.zeros((2, 8, 8, 3), np.uint8))
    grey = np.full((2, 8, 8, 3), 90, np.uint8)
    grey[1] = 200  # each picture by itself
    with pytest.raises(UserError, match="have one colour"):
        check_first(grey)
    grey[1, 0, 0, 0] = 201
    check_first(grey)


def test_pixels_that_are_not_finite_name_the_vae():
    check_pixels(True)
    with pytest.raises(UserError, match=r"the VAE gives NaN or infinity for the pixels.*Load the VAE in fp32 or bf16"):
        check_pixels(False)
