"""Trackers of a run, by accelerate: TensorBoard, wandb and others get each number once, over all resumes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UserError
from .folder import RunFolder

if TYPE_CHECKING:
    from PIL.Image import Image

PROJECT = "dreambooth_dpo"
"""The project's (experiment's, folder's) name in every tracker."""
LOGS = "logs"
"""Folder in the run folder for trackers that write files."""
_FACT = "logged"


def check_trackers(names: Sequence[str]) -> None:
    """Raises UserError for a tracker that accelerate does not know, or whose package is not installed."""
    if not names:
        return
    try:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
        from accelerate.utils import LoggerType
    except ImportError as error:
        raise UserError(
            f"log_with is {', '.join(names)}, but trackers need accelerate, which cannot be imported ({error}): "
            "`pip install accelerate`, or leave log_with empty."
        ) from error
    own, installed = {str(kind) for kind in LoggerType.list()}, {str(kind) for kind in get_available_trackers()}
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            known = ", ".join(sorted(LOGGER_TYPE_TO_CLASS))
            raise UserError(f"log_with is {name!r}, which accelerate does not know: use one of {known}.")
        if name in own and name not in installed:
            raise UserError(
                f"log_with is {name!r}, but its package is not installed: `pip install {name}`, or take it off "
                "log_with."
            )


class Trackers:
    """The trackers of one run; without names, or outside `opened`, nothing is logged.

    run: keeps what each tracker has (fact "logged"), so that a resumed run goes on where the log ends. about: values of
    the run as nested JSON; each tracker gets them once, as hyperparameters.

    A kill between a log and its record logs that one number again. A tracker that fails later on is left out with a
    warning: the run goes on.
    """

    def __init__(
        self, run: RunFolder | None = None, names: Sequence[str] = (), about: Mapping[str, Any] | None = None
    ) -> None:
        self._run, self._names, self._about = run, tuple(dict.fromkeys(names)), about or {}
        self._open: dict[str, Any] = {}
        self._logged: dict[str, dict[str, int]] = {}

    def __bool__(self) -> bool:
        """Whether something is logged now."""
        return bool(self._open)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Inside, numbers and pictures are logged. Raises UserError where a tracker does not start."""
        try:
            if self._names:
                check_trackers(self._names)
                self._logged = dict(self._run.fact(_FACT) or {})
                for name in self._names:
                    self._open[name] = _started(name, self._run)
                self._log("about", 1, lambda _, tracker: tracker.store_init_configuration(flat(self._about)))
            yield
        finally:
            for name, tracker in self._open.items():
                _guarded(name, tracker.finish)
            self._open = {}

    def numbers(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Log numbers at a global step, which must rise within a kind; a tracker that has this step does not get it
        again.
        """
        self._log(kind, step, lambda _, tracker: tracker.log(dict(values), step=step))

    def picture(self, kind: str, step: int, picture: Image) -> None:
        """Log a picture, as `numbers`, in the trackers that take pictures."""
        pixels = np.asarray(picture.convert("RGB"))
        self._log(kind, step, lambda name, tracker: _log_picture(name, tracker, kind, step, pixels))

    def _log(self, kind: str, step: int, log: Callable[[str, Any], object]) -> None:
        told = False
        for name, tracker in list(self._open.items()):
            marks = self._logged.setdefault(name, {})
            if step <= marks.get(kind, -1):
                continue
            if _guarded(name, lambda name=name, tracker=tracker: log(name, tracker)):
                marks[kind], told = step, True
            else:
                del self._open[name]
        if told:
            self._record()

    def _record(self) -> None:
        """Store what each tracker has. A failure is only said: in training, other processes wait for this one."""
        try:
            self._run.set_fact(_FACT, self._logged)
        except UserError as error:
            logging.warning("what the trackers have got was not recorded, a resume may log it twice: %s", error)


NO_TRACKERS = Trackers()
"""Logs nothing."""


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, bool | str | float | int]:
    """Nested JSON by dotted name, as trackers take hyperparameters; lists become JSON text, None is left out."""
    found: dict[str, bool | str | float | int] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        elif isinstance(value, (bool, str, float, int)):
            found[prefix + name] = value
        elif value is not None:
            found[prefix + name] = json.dumps(value, ensure_ascii=False)
    return found


def _started(name: str, run: RunFolder) -> Any:
    """A tracker of accelerate, started. Raises UserError where that fails: no login, no network, no folder."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    _alone()
    kind = LOGGER_TYPE_TO_CLASS[name]
    given = [PROJECT, str(run.path / LOGS)] if kind.requires_logging_directory else [PROJECT]
    try:
        tracker = kind(*given)
        tracker.start()
    except Exception as error:  # each package raises its own types
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"log_with is {name!r}, which does not start ({type(error).__name__}: {reason}). Log in or repair it as "
            "its own guide says, or take it off log_with."
        ) from error
    return tracker


def _alone() -> None:
    """accelerate's state, without which its trackers raise: one process, since the leader alone logs.

    The launcher's environment is hidden meanwhile, or accelerate would count all processes and set threads and devices.
    """
    from accelerate import PartialState
    from accelerate.utils import clear_environment

    if PartialState._shared_state == {}:
        with clear_environment():
            PartialState(cpu=True)


def _guarded(name: str, call: Callable[[], object]) -> bool:
    """Whether the tracker's call worked; if not, say so: a run must not end because of its log."""
    try:
        call()
    except Exception as error:  # each package raises its own types
        logging.warning(
            "the tracker %s failed and gets nothing more (%s: %s); the run goes on, and logs what is missing when it "
            "is resumed",
            name, type(error).__name__, error,
        )  # fmt: skip
        return False
    return True


def _log_picture(name: str, tracker: Any, kind: str, step: int, pixels: np.ndarray) -> None:
    """pixels: uint8 [H, W, 3]. Trackers of accelerate differ in what a picture is, and some take none."""
    if not hasattr(tracker, "log_images"):
        return
    if name == "tensorboard":
        tracker.log_images({kind: pixels[None]}, step=step, dataformats="NHWC")
    else:
        tracker.log_images({kind: pixels if name in ("aim", "clearml") else [pixels]}, step=step)
