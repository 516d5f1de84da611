"""The loop: sample, score, pair, train, and again with fresh candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .adapter import Adapter
from .axes import AXES, axis_of, names_of
from .compiling import check_compiler
from .drafts import drafting, finish_set, told
from .errors import UserError
from .memory import at_level, first_level, next_level
from .pair_data import PairData
from .picture_check import NothingToCompare
from .progress import Progress, silent
from .prompts import PromptSet
from .protocols import Scorer, TextToImage
from .run_folder import RunFolder
from .sampling import sample_set
from .scoring import score_set
from .settings import LoopSettings, SamplingSettings
from .stages import NoPairs, build_pairs, check_pairs, drawing, pair_data, self_test, train_pairs
from .strength import sweep_kept
from .trainer import TrainingStopped
from .training import training_seed
from .watch import watch

EVALUATION_SALT = 999_983


@dataclass(frozen=True)
class Loop:
    """Everything that the stages of a run share; `judges` only measure.

    `rewards` must hold scorers named "fidelity" and "alignment"; further ones of an axis are "fidelity_2", "alignment_2", ...
    """

    run: RunFolder
    model: TextToImage
    adapter: Adapter
    prompts: PromptSet
    rewards: Sequence[Scorer]
    judges: Sequence[Scorer]
    settings: LoopSettings
    progress: Progress = silent

    def __post_init__(self) -> None:
        if missing := {"fidelity", "alignment"} - {s.name for s in self.rewards}:
            raise UserError(f"reward scorers lack {sorted(missing)}: give one scorer named 'fidelity' and one named 'alignment'.")
        if strange := [s.name for s in self.rewards if axis_of(s.name) is None]:
            raise UserError(
                f"reward scorer {strange[0]!r} stands on no axis: name it 'fidelity_2' or 'alignment_2' (3, 4, ...), or let it be a judge."
            )
        if self.settings.train.compile:
            check_compiler(self.model.device)
        names = [s.name for s in [*self.rewards, *self.judges]]
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise UserError(f"scorer name {twice[0]!r} stands twice, and one's scores would replace the other's. Name each scorer once.")

    @property
    def axes(self) -> list[tuple[str, ...]]:
        """Names of the reward scorers of fidelity, and of alignment."""
        return [names_of(axis, [s.name for s in self.rewards]) for axis in AXES]

    # --- stages ---

    def evaluate(self, round_index: int) -> None:
        """Held-out pictures and scores of the model as it stands after `round_index` rounds (0: as it came)."""
        self.held_out(f"evaluation_{round_index}", self.settings.evaluation.seeds_per_prompt)

    def held_out(self, name: str, seeds_per_prompt: int) -> None:
        """Held-out pictures of the model as it stands, drawn and scored as the set `name`; kept ones are not made again."""
        evaluation, sampling = self.settings.evaluation, self.settings.sampling
        if evaluation.guidance is not None:
            sampling = sampling.model_copy(update={"guidance": evaluation.guidance})
        self._put_scorers_aside()
        with drawing(self.model, self.adapter):
            sample_set(
                self.run,
                name,
                self.model,
                self.prompts.held_out,
                seeds_per_prompt,
                sampling,
                evaluation.seed,
                EVALUATION_SALT,
                self.progress,
            )
        score_set(self.run, name, [*self.rewards, *self.judges], self.progress)

    def candidates(self, round_index: int) -> None:
        """Fresh candidates of this round, scored. With `sampling.draft_steps` they are drafted first, see drafts.py.

        Raises NoPairs where no draft stands in a pair.
        """
        name, sampling = f"round_{round_index}", self.settings.sampling
        if not sampling.draft_steps:
            self._draw(name, sampling, round_index)
            score_set(self.run, name, self.rewards, self.progress)
            return
        drafts = f"drafts_{round_index}"
        self._draw(drafts, drafting(sampling), round_index)
        score_set(self.run, drafts, self.rewards, self.progress)
        build_pairs(self.run, drafts, self.settings.pairs, drafts, self.progress, *self.axes)
        self._put_scorers_aside()
        with drawing(self.model, self.adapter):
            finish_set(self.run, drafts, drafts, name, self.model, sampling, self.progress)
        score_set(self.run, name, self.rewards, self.progress)
        told(self.run, name, self.axes, self.settings.pairs.combine)

    def _put_scorers_aside(self) -> None:
        """Scorers that can leave the GPU do so while the model draws or trains; they come back with the next score."""
        for scorer in [*self.rewards, *self.judges]:
            if callable(rest := getattr(scorer, "rest", None)):
                rest()

    def _draw(self, name: str, sampling: SamplingSettings, round_index: int) -> None:
        each, prompts = sampling.candidates_per_prompt, self.prompts.train
        self._put_scorers_aside()
        with drawing(self.model, self.adapter):
            sample_set(self.run, name, self.model, prompts, each, sampling, sampling.seed, round_index, self.progress, compared=True)

    def pair(self, round_index: int) -> None:
        """Pairs of this round by the pair rule, with the yield that says where the rest went. Raises NoPairs where there is none."""
        name = f"round_{round_index}"
        build_pairs(self.run, name, self.settings.pairs, name, self.progress, *self.axes)
        check_pairs(self.run, name)

    def pair_data(self, round_index: int) -> PairData:
        return pair_data(self.run, f"round_{round_index}", f"round_{round_index}", self.model)

    def train(self, round_index: int) -> None:
        """Train on this round's pairs from the adapter as it stands; resumes from the last checkpoint of this round."""
        self._put_scorers_aside()
        with self.model.training():
            data, seed = self.pair_data(round_index), training_seed(self.settings.sampling.seed, round_index)
            self._self_test(data)
            train_pairs(self.run, round_index, self.model, self.adapter, data, self.settings.train, seed, self.progress)

    def _self_test(self, data: PairData) -> None:
        """Once a run and kind of machine, before anything is trained there: are gradients right? Raises UserError where they are not.

        At the first memory level that one sample fits into; where it fits into none, training says so.
        """
        level: str | None = first_level(self.settings.train)
        kind = [type(self.model.denoiser).__name__, self.model.device.type, self.model.precision, level]
        if self.run.fact("self_test") == kind:
            return
        while level:
            try:
                with at_level(self.model.denoiser, level):
                    self_test(self.model, self.adapter, data)
                break
            except torch.OutOfMemoryError:
                level = next_level(self.settings.train, level, self.model.denoiser)
        self.run.set_fact("self_test", kind)

    # --- the whole ---

    def begin(self, round_index: int) -> None:
        """Put the adapter as it stood when this round began; round 0 keeps it, so that an interrupted training leaves no trace."""
        if kept := self.run.load_state(f"adapter_{round_index}"):
            self.adapter.load(kept[0])
        elif round_index == 0:
            self.run.save_state("adapter_0", self.adapter.state())
        else:
            raise UserError(f"{self.run.path} holds no adapter of round {round_index - 1}: run the rounds in their order.")

    def improve(self, round_index: int) -> None:
        """Sample, score, pair and train a round, and keep its adapter; a kept one is only put on."""
        name, stopped = f"adapter_{round_index + 1}", None
        if kept := self.run.load_state(name):
            self.adapter.load(kept[0])
            return
        self.begin(round_index)
        self.candidates(round_index)
        self.pair(round_index)
        try:
            self.train(round_index)
        except TrainingStopped as stop:
            stopped = {"round": round_index, "reason": str(stop)}
        # The fact first: where the adapter is kept, it is known whether training went to its end.
        self.run.set_fact("stopped", stopped)
        self.run.save_state(name, self.adapter.state())
        self.run.state_path(f"training_{round_index}").unlink(missing_ok=True)

    def _is_stopped(self, round_index: int) -> bool:
        stopped = self.run.fact("stopped")
        return bool(stopped) and stopped["round"] == round_index

    def go(self) -> int:
        """Run the rounds, doing only what is missing; returns the number of the round that is kept, whose adapter then stands.

        By the stop rule (settings.stop) that is the round whose gain is surest, 0 if the original is not beaten; with the rule off, the
        last. A training that a guard stops, or a later round without any pair or whose candidates show nothing, ends the loop with the
        last good adapter (fact "stopped").
        With settings.sweep the kept adapter is then tried at several strengths (fact "strength").
        """
        self.begin(0)
        self.evaluate(0)
        self.run.set_fact("watch", None)
        self.run.set_fact("kept", None)
        trained, evaluated, kept = 0, [], None
        for round_index in range(self.settings.rounds):
            stopped = False
            try:
                self.improve(round_index)
                trained, stopped = round_index + 1, self._is_stopped(round_index)
            except (NoPairs, NothingToCompare) as none:
                if round_index == 0:
                    raise
                self.run.set_fact("stopped", {"round": round_index, "reason": str(none)})
                stopped = True
            if self.settings.evaluation.every_round or stopped or trained == self.settings.rounds:
                self.evaluate(trained)
                evaluated = sorted({*evaluated, trained})
                if self.settings.stop.rule != "last":
                    kept = watch(self.run, evaluated, [s.name for s in [*self.rewards, *self.judges]], self.settings)
                    stopped |= kept.stop
            if stopped:
                break
        self.run.set_fact("rounds", trained)
        number = self._put_on(trained if kept is None else kept.kept)
        if self.settings.sweep:
            sweep_kept(self, number)
        return number

    def _put_on(self, number: int) -> int:
        """The adapter as it stood after this many rounds."""
        if found := self.run.load_state(f"adapter_{number}"):
            self.adapter.load(found[0])
        return number
