"""The command line as a user of it: what it prints where it succeeds, and where it refuses."""

from __future__ import annotations

from click.testing import Result
from typer.testing import CliRunner

from dreambooth_dpo.cli import app


def call(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(a) for a in arguments])


def succeeds(*arguments: object) -> str:
    """The output, in one line."""
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.split())


def fails(*arguments: object) -> str:
    """The message of a refusal."""
    result = call(*arguments)
    assert result.exit_code == 2 and "Traceback" not in result.output, result.output
    return result.stderr
