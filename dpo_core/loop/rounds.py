"""The loop: sample, score, pair and train, round after round with fresh candidates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ..axes import AXES, names_of
from ..crew import ALONE, Crew
from ..errors import UserError
from ..evaluation.enough import check_enough
from ..evaluation.held_out import HeldOutPlan, read_measured
from ..evaluation.standings import watch
from ..pairs.build import NoPairs, build_pairs, check_pairs
from ..progress import Progress, silent
from ..prompts import PromptSet
from ..protocols import Scorer, TextToImage
from ..run.folder import RunFolder
from ..run.trackers import NO_TRACKERS, Trackers
from ..sampling.picture_check import NothingToCompare
from ..sampling.pool import Photos, check_pool
from ..sampling.sets import sample_set
from ..scoring.sets import score_set
from ..settings import LoopSettings, SamplingSettings
from ..training.adapter import Adapter, drawing
from ..training.dataset import TrainingData
from ..training.groups import training_data
from ..training.memory.compile import check_compiler
from ..training.memory.levels import streams
from ..training.round import stop_reason, train_round
from ..training.steps import training_seed
from .drafts import drafting, finish_set, told
from .estimate import check_room
from .own_pairs import OwnInput
from .samples import sample_grid
from .scorer_names import check_scorers
from .strength_sweep import sweep_kept
from .tracking import global_step, track_held_out, track_record


@dataclass(frozen=True)
class Loop:
    """Everything that the stages of a run share; `judges` only measure.

    `rewards` must hold scorers named "fidelity" and "alignment"; further scorers of an axis are named "fidelity_2",
    "alignment_2", ... Raises UserError for missing, unknown or duplicate scorer names.
    """

    run: RunFolder
    model: TextToImage
    adapter: Adapter
    prompts: PromptSet
    rewards: Sequence[Scorer]
    judges: Sequence[Scorer]
    settings: LoopSettings
    progress: Progress = silent
    crew: Crew = ALONE
    """The processes that share the work."""
    trackers: Trackers = NO_TRACKERS
    """Get numbers and sample grids while `go` runs."""
    photos: Photos | None = None
    """The reference photos, for `sampling.photo_candidates`."""
    own: OwnInput | None = None
    """A person's own pairs, trained on in every round."""

    def __post_init__(self) -> None:
        check_scorers(self.rewards, self.judges)
        check_pool(self.model, self.settings.sampling, self.photos)
        if self.settings.train.compile:
            check_compiler(self.model.device)
        if (parts := self.settings.prompt_parts) > len(self.prompts.train):
            raise UserError(
                f"prompt_parts is {parts}, but there are {len(self.prompts.train)} training prompts: a round would "
                "have none. Lower prompt_parts."
            )

    def check_enough(self) -> None:
        """Refuse a run whose early stopping or sweep could never show a gain; a run that has begun is finished.

        Raises UserError before anything is drawn.
        """
        evaluation, prompts = self.settings.evaluation, len(self.prompts.held_out)
        if self.run.has_candidates():
            return
        if self.settings.stop.rule != "last":
            check_enough(prompts, evaluation.seeds_per_prompt, "stop.rule: best", "set stop.rule: last")
        if self.settings.sweep:  # it draws two pictures of each prompt in any case
            check_enough(prompts, 2, "sweep: true", "set sweep: false")

    @property
    def axes(self) -> list[tuple[str, ...]]:
        """Names of the reward scorers of fidelity, and those of alignment."""
        return [names_of(axis, [s.name for s in self.rewards]) for axis in AXES]

    # --- stages ---

    def evaluate(self, round_index: int) -> None:
        """Draw and score what is missing of the held-out images after `round_index` rounds (0: the incoming model)."""
        plan, name = self.held_out(), f"evaluation_{round_index}"
        plan.measure(self.run, {name: self.adapted_model()}, self.progress)
        if self.trackers:
            titles = {title: scorer.name for title, scorer in plan.scorers.items()}
            measured = read_measured(self.run, ["evaluation_0", name], titles)
            track_held_out(self.trackers, self.settings.train, round_index, measured)

    def held_out(self, seeds_per_prompt: int | None = None) -> HeldOutPlan:
        """The plan by which this run measures a model; `seeds_per_prompt` overrides the evaluation's number."""
        evaluation, sampling = self.settings.evaluation, self.settings.sampling
        if evaluation.guidance is not None:
            sampling = sampling.model_copy(update={"guidance": evaluation.guidance})
        scorers = {s.name: s for s in [*self.rewards, *self.judges]}
        return HeldOutPlan(
            self.prompts.held_out, seeds_per_prompt or evaluation.seeds_per_prompt, sampling, evaluation.seed, scorers,
            self.crew,
        )  # fmt: skip

    @contextmanager
    def adapted_model(self) -> Iterator[TextToImage]:
        """The model with the adapter applied, for drawing. Scorers leave the accelerator first."""
        self.put_scorers_aside()
        with self.crew.drawing(self.adapter.state()), drawing(self.model, self.adapter):
            yield self.model

    def candidates(self, round_index: int) -> None:
        """Draw and score fresh candidates of this round; with `sampling.draft_steps`, drafts come first (drafts.py).

        Raises NoPairs where no draft is in a pair.
        """
        name, sampling = f"round_{round_index}", self.settings.sampling.of_candidates()
        if not sampling.draft_steps:
            self._draw(name, sampling, round_index)
            score_set(self.run, name, self.rewards, self.progress, self.crew)
            return
        drafts = f"drafts_{round_index}"
        self._draw(drafts, drafting(sampling), round_index)
        score_set(self.run, drafts, self.rewards, self.progress, self.crew)
        build_pairs(self.run, drafts, self.settings.pairs, drafts, self.progress, *self.axes)
        with self.adapted_model() as model:
            finish_set(self.run, drafts, drafts, name, model, sampling, self.progress, self.crew, self.photos)
        score_set(self.run, name, self.rewards, self.progress, self.crew)
        told(self.run, name, self.axes, self.settings.pairs.combine)

    def prompts_of(self, round_index: int) -> tuple[str, ...]:
        """The training prompts that this round draws for: those of its part, by `prompt_parts`."""
        parts = self.settings.prompt_parts
        return self.prompts.train[round_index % parts :: parts]

    def sets_before(self, round_index: int) -> list[str]:
        """Sets of the rounds before that drew for this round's prompts, the latest first: `sampling.earlier_rounds`."""
        parts, most = self.settings.prompt_parts, self.settings.sampling.earlier_rounds
        return [f"round_{n}" for n in range(round_index - parts, -1, -parts)][:most]

    def put_scorers_aside(self) -> None:
        """Move scorers that support it off the GPU while the model draws or trains; the next score brings them back."""
        for scorer in [*self.rewards, *self.judges]:
            if callable(rest := getattr(scorer, "rest", None)):
                rest()

    def _draw(self, name: str, sampling: SamplingSettings, round_index: int) -> None:
        each, prompts = sampling.candidates_per_prompt, self.prompts_of(round_index)
        with self.adapted_model() as model:
            given = sampling, sampling.seed, round_index, self.progress, True, self.crew, self.photos
            sample_set(self.run, name, model, prompts, each, *given, self.sets_before(round_index))

    def pair(self, round_index: int) -> None:
        """Choose the pairs of this round by the pair rule, and store them with their yield; own pairs go with them.

        Raises NoPairs where there is none by the rule.
        """
        name = f"round_{round_index}"
        build_pairs(self.run, name, self.settings.pairs, name, self.progress, *self.axes)
        check_pairs(self.run, name)
        if self.own is not None:
            self.own.add(self.run, name, self.model, self.settings.sampling, self.progress)

    def pair_data(self, round_index: int) -> TrainingData:
        """This round's pairs, or its candidates in groups where the objective trains on groups."""
        name, settings = f"round_{round_index}", self.settings
        return training_data(self.run, name, name, self.model, settings.train, settings.pairs, *self.axes)

    def train(self, round_index: int) -> str | None:
        """Train on this round's pairs, starting from the current adapter, and store the result.

        Returns the reason when a guard stopped training, else None.
        """
        self.put_scorers_aside()
        with self.model.training(streams(self.settings.train)):
            data, seed = self.pair_data(round_index), training_seed(self.settings.sampling.seed, round_index)
            reason = train_round(
                self.run, round_index, self.model, self.adapter, data, self.settings.train, seed, self.progress,
                lambda record: track_record(self.trackers, self.settings.train, round_index, record), self.crew,
                lambda steps: self._sample(round_index, steps),
            )  # fmt: skip
        self._track_training(round_index)  # steps after the last good state, where a guard stopped training
        return reason

    def _sample(self, round_index: int, steps: int) -> None:
        """Draw the sample grid after `steps` steps of this round, with the adapter as it is."""
        train = self.settings.train
        image = sample_grid(self.run, round_index, steps, self.model, self.held_out(), train.sample_prompts)
        if image is not None:
            self.trackers.picture("samples", global_step(train, round_index, steps), image)

    def _track_training(self, round_index: int) -> None:
        """Log the steps of a round that the trackers do not have yet, such as those before a tracker was asked for."""
        for record in self.run.training(round_index) if self.trackers else ():
            track_record(self.trackers, self.settings.train, round_index, record)

    # --- whole rounds ---

    def begin(self, round_index: int) -> None:
        """Load the adapter with which this round begins; round 0 stores it, so that training can be restarted from it.

        Raises UserError when the adapter of the round before is missing.
        """
        if kept := self.run.load_state(f"adapter_{round_index}"):
            self.adapter.load(kept[0])
        elif round_index == 0:
            self.run.save_state("adapter_0", self.adapter.state())
        else:
            raise UserError(f"{self.run.path} holds no adapter of round {round_index - 1}: run the rounds in order.")

    def improve(self, round_index: int) -> str | None:
        """Sample, score, pair and train one round, and store its adapter; a finished round only loads its adapter.

        Returns why training stopped, or None.
        """
        if kept := self.run.load_state(f"adapter_{round_index + 1}"):
            self.adapter.load(kept[0])
            self._track_training(round_index)
            return stop_reason(self.run, round_index)
        self.begin(round_index)
        self.candidates(round_index)
        self.pair(round_index)
        return self.train(round_index)

    def go(self) -> int:
        """Run the rounds, doing only what is missing; return the number of the kept round, with its adapter loaded.

        With early stopping (settings.stop) that is the round with the highest lower confidence bound of its gain, 0 if
        the original is not beaten; with rule "last" it is the last round. The loop ends with the last good adapter
        (fact "stopped") when a guard stops training, or when a later round has no pair or its candidates are all alike.
        With settings.sweep the kept adapter is then tried at several strengths (fact "strength"). Raises UserError as
        `check_enough` and `estimate.check_room` do, and where a tracker does not start.
        """
        self.check_enough()
        check_room(self)
        with self.trackers.opened():
            return self._rounds()

    def _rounds(self) -> int:
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
        number = self._load_adapter(trained if kept is None else kept.kept)
        if self.settings.sweep:
            sweep_kept(self, number)
        return number

    def _load_adapter(self, number: int) -> int:
        """Load the adapter as it was after `number` rounds, if stored; return `number`."""
        if found := self.run.load_state(f"adapter_{number}"):
            self.adapter.load(found[0])
        return number
