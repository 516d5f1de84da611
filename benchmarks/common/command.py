"""What the commands of benchmarks share: options, lists of names, and the JSON file that each writes."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path

from ...dpo_core.run.files import write_json


def command_parser(about: str | None, out: str, concepts: str | None = None, jobs: bool = False):
    """A parser that shows `about` as it is written, with --out, and --concepts and --jobs where a command has them."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs") / out, help="default: %(default)s")
    if concepts is not None:
        about_concepts = "toybox concepts, e.g. 0-4,7; default: %(default)s"
        parser.add_argument("--concepts", type=parse_numbers, default=concepts, help=about_concepts)
    if jobs:
        parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="concepts at a time, one thread each")
    return parser


def parse_numbers(text: str) -> list[int]:
    """ "0-4,7" -> [0, 1, 2, 3, 4, 7]; "" -> []."""
    numbers: list[int] = []
    for part in filter(None, text.split(",")):
        low, _, high = part.partition("-")
        numbers += range(int(low), int(high or low) + 1)
    return numbers


def parse_names(
    parser: argparse.ArgumentParser, text: str, known: Iterable[str], noun: str, separator: str = ","
) -> list[str]:
    """The names in `text`. The command ends with a usage error at a name that is not `known`."""
    names = text.split(separator)
    if unknown := [n for n in names if n not in known]:
        parser.error(f"no {noun} {unknown[0]!r}; {noun}s are {f'{separator} '.join(known)}")
    return names


def write_result(path: Path, found: object, *pictures: str) -> None:
    """Write JSON, and print its path with the names of the pictures beside it."""
    write_json(path, found)
    print("wrote " + " and ".join([str(path), *pictures]))
