"""The loop: sample, score, pair, train, and again with fresh candidates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ..axes import AXES, axis_of, names_of
from ..errors import UserError
from ..evaluation.held_out import HeldOutPlan
from ..evaluation.standings import watch
from ..pairs.build import NoPairs, build_pairs, check_pairs
from ..progress import Progress, silent
from ..prompts import PromptSet
from ..protocols import Scorer, TextToImage
from ..run.folder import RunFolder
from ..sampling.picture_check import NothingToCompare
from ..sampling.sets import sample_set
from ..scoring.sets import score_set
from ..settings import LoopSettings, SamplingSettings
from ..training.adapter import Adapter, drawing
from ..training.dataset import PairData, pair_data
from ..training.memory.compile import check_compiler
from ..training.round import stop_reason, train_round
from ..training.steps import training_seed
from .drafts import drafting, finish_set, told
from .strength_sweep import sweep_kept


@dataclass(frozen=True)
class Loop:
    """Everything that the stages of a run share; `judges` only measure.

    `rewards` must hold scorers named "fidelity" and "alignment"; further ones of an axis are "fidelity_2",
    "alignment_2", ...
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
            raise UserError(
                f"reward scorers lack {sorted(missing)}: give one scorer named 'fidelity' and one named 'alignment'."
            )
        if strange := [s.name for s in self.rewards if axis_of(s.name) is None]:
            raise UserError(
                f"reward scorer {strange[0]!r} stands on no axis: name it 'fidelity_2' or 'alignment_2' (3, 4, ...), or let it be a judge."
            )
        if self.settings.train.compile:
            check_compiler(self.model.device)
        names = [s.name for s in [*self.rewards, *self.judges]]
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise UserError(
                f"scorer name {twice[0]!r} stands twice, and one's scores would replace the other's. Name each scorer once."
            )

    @property
    def axes(self) -> list[tuple[str, ...]]:
        """Names of the reward scorers of fidelity, and of alignment."""
        return [names_of(axis, [s.name for s in self.rewards]) for axis in AXES]

    # --- stages ---

    def evaluate(self, round_index: int) -> None:
        """Held-out pictures and scores of the model as it stands after `round_index` rounds (0: as it came), where they
        are missing.
        """
        self.held_out().measure(self.run, {f"evaluation_{round_index}": self.worn()}, self.progress)

    def held_out(self, seeds_per_prompt: int | None = None) -> HeldOutPlan:
        """How this run measures a model; `seeds_per_prompt`: another number of pictures than the evaluation's."""
        evaluation, sampling = self.settings.evaluation, self.settings.sampling
        if evaluation.guidance is not None:
            sampling = sampling.model_copy(update={"guidance": evaluation.guidance})
        scorers = {s.name: s for s in [*self.rewards, *self.judges]}
        return HeldOutPlan(
            self.prompts.held_out, seeds_per_prompt or evaluation.seeds_per_prompt, sampling, evaluation.seed, scorers
        )

    @contextmanager
    def worn(self) -> Iterator[TextToImage]:
        """The model with the adapter as it stands, to draw with; scorers make room for it."""
        self._put_scorers_aside()
        with drawing(self.model, self.adapter):
            yield self.model

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
        with self.worn() as model:
            finish_set(self.run, drafts, drafts, name, model, sampling, self.progress)
        score_set(self.run, name, self.rewards, self.progress)
        told(self.run, name, self.axes, self.settings.pairs.combine)

    def _put_scorers_aside(self) -> None:
        """Scorers that can leave the GPU do so while the model draws or trains; they come back with the next score."""
        for scorer in [*self.rewards, *self.judges]:
            if callable(rest := getattr(scorer, "rest", None)):
                rest()

    def _draw(self, name: str, sampling: SamplingSettings, round_index: int) -> None:
        each, prompts = sampling.candidates_per_prompt, self.prompts.train
        with self.worn() as model:
            sample_set(
                self.run, name, model, prompts, each, sampling, sampling.seed, round_index, self.progress, compared=True
            )

    def pair(self, round_index: int) -> None:
        """Pairs of this round by the pair rule, with the yield that says where the rest went.

        Raises NoPairs where there is none.
        """
        name = f"round_{round_index}"
        build_pairs(self.run, name, self.settings.pairs, name, self.progress, *self.axes)
        check_pairs(self.run, name)

    def pair_data(self, round_index: int) -> PairData:
        return pair_data(self.run, f"round_{round_index}", f"round_{round_index}", self.model)

    def train(self, round_index: int) -> str | None:
        """Train on this round's pairs from the adapter as it stands, and keep the result; returns why a guard stopped
        it, if one did.
        """
        self._put_scorers_aside()
        with self.model.training():
            data, seed = self.pair_data(round_index), training_seed(self.settings.sampling.seed, round_index)
            return train_round(
                self.run, round_index, self.model, self.adapter, data, self.settings.train, seed, self.progress
            )

    # --- the whole ---

    def begin(self, round_index: int) -> None:
        """Put the adapter as it stood when this round began; round 0 keeps it, so that an interrupted training leaves
        no trace.
        """
        if kept := self.run.load_state(f"adapter_{round_index}"):
            self.adapter.load(kept[0])
        elif round_index == 0:
            self.run.save_state("adapter_0", self.adapter.state())
        else:
            raise UserError(
                f"{self.run.path} holds no adapter of round {round_index - 1}: run the rounds in their order."
            )

    def improve(self, round_index: int) -> str | None:
        """Sample, score, pair and train a round, and keep its adapter; a kept one is only put on.

        Returns why training stopped, or None.
        """
        if kept := self.run.load_state(f"adapter_{round_index + 1}"):
            self.adapter.load(kept[0])
            return stop_reason(self.run, round_index)
        self.begin(round_index)
        self.candidates(round_index)
        self.pair(round_index)
        return self.train(round_index)

    def go(self) -> int:
        """Run the rounds, doing only what is missing; returns the number of the round that is kept, whose adapter then
        stands.

        By the stop rule (settings.stop) that is the round whose gain is surest, 0 if the original is not beaten; with
        the rule off, the last. A training that a guard stops, or a later round without any pair or whose candidates
        show nothing, ends the loop with the last good adapter (fact "stopped"). With settings.sweep the kept adapter is
        then tried at several strengths (fact "strength").
        """
        self.begin(0)
        self.evaluate(0)
        self.run.set_fact("watch", None)
        self.run.set_fact("kept", None)
        trained, evaluated, kept = 0, [], None
        for round_index in range(self.settings.rounds):
            stopped = False
            try:
                stopped = self.improve(round_index) is not None
                trained = round_index + 1
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
