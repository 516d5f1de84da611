"""The doctor command: shows the report, writes it, and returns the exit status."""

from __future__ import annotations

import json
import sys

from .command import WrongOptions, check_options, examine, report
from .findings import FAILED, Finding, worst
from .options import Options
from .show import Shown


def run(options: Options) -> int:
    """0 if nothing failed, 1 if something did, 2 if the options are invalid, 130 after an interrupt."""
    try:
        check_options(options)
    except WrongOptions as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    lines: list[tuple[str, Finding]] = []
    interrupted = False
    with Shown() as shown:
        try:
            for part, found in examine(options, shown.doing):
                lines.append((part, found))
                shown.line(part, found)
        except KeyboardInterrupt:
            interrupted = True
    findings = [found for _, found in lines]
    status = "interrupted" if interrupted else worst(findings)
    if interrupted:
        print("\nInterrupted: only the lines above were checked.", file=sys.stderr)
    else:
        shown.end(findings)
    if options.json is not None and not _written(options, report(options, lines, status)):
        return 2
    return 130 if interrupted else int(status == FAILED)


def _written(options: Options, found: dict) -> bool:
    """Write the JSON file; False if a file of that name exists by now, or if it cannot be written."""
    try:
        with options.json.open("x", encoding="utf-8") as file:
            json.dump(found, file, indent=2, ensure_ascii=False, allow_nan=False)
    except OSError as error:
        print(f"Error: cannot write {options.json}: {error.strerror}. Name another file with --json.", file=sys.stderr)
        return False
    print(f"JSON: {options.json}")
    return True
