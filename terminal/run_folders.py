"""The run folder that a command is given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..dpo_core.errors import UserError

if TYPE_CHECKING:
    from ..dpo_core.run.folder import RunFolder


def existing_run(folder: Path) -> RunFolder:
    """The run in a folder, opened. Raises UserError where there is none: opening would make one."""
    from ..dpo_core.run.folder import RunFolder

    if not (folder / "records.sqlite").is_file():
        raise UserError(f"{folder} is not a run folder (no records.sqlite). Give the output folder of a run.")
    return RunFolder(folder)
