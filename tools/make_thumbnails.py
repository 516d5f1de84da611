"""Makes the cards of the example workflows for Browse Templates.

`python tools/make_thumbnails.py [names] [--runs FOLDER]` writes example_workflows/<name>.jpg. An example with the
toybox is run to the end in a real ComfyUI, and its card shows that run's pictures. The others need the user's models:
their card is a drawing. --runs keeps the runs in a folder, and takes those that are there.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

import cards
from family_workflows import FAMILIES
from hosting import Server
from one_click import NAMES as ONE_CLICK
from PIL import Image
from workflows import FOLDER, to_api

from example_workflows import graphs
from subgraphs import unpacked

QUALITY, LIMIT = 84, 60_000
"""JPEG quality of a card, and its greatest size in bytes."""
SAMPLE, FINISH, SCORE = "DBDPO_SampleCandidates", "DBDPO_FinishCandidates", "DBDPO_Score"
PAIRS, LOOK = "DBDPO_BuildPairs", "DBDPO_PreviewPairs"
Pictures = dict[str, list[Image.Image]]
"""A run's pictures by node type, of the loop's inner nodes by name (keep_0), and before, after, better, worse."""


def pictures_of(history: dict, graph: dict, folder: Path) -> Pictures:
    """The pictures that the nodes of a run showed. folder: the server's."""
    found: Pictures = {}
    for node, shown in history["outputs"].items():
        kind = graph[node]["class_type"] if node in graph else node.rsplit(".", 1)[-1]
        for image in shown.get("images", []):
            found.setdefault(kind, []).append(
                Image.open(folder / image["type"] / image["subfolder"] / image["filename"])
            )
        for compared in shown.get("dbdpo_compare", []):
            for when in ("before", "after"):
                there = folder / "output" / compared[when]
                found[when] = [Image.open(there / name) for name in largest_gains(compared["pairs"])]
    for records in folder.glob("output/dreambooth_dpo/*/records.sqlite"):
        found |= pair_pictures(records)
    return found


def pair_pictures(records: Path) -> Pictures:
    """Winners and losers of a run's pairs, one pair a prompt, the clearest in alignment first."""
    with sqlite3.connect(records) as table:
        chosen = table.execute(
            "SELECT c.set_name, winner, loser, MAX(d_alignment) FROM pairs JOIN candidates c ON c.position = winner "
            "AND pairs.set_name LIKE c.set_name || '%' GROUP BY c.prompt_index ORDER BY MAX(d_alignment) DESC"
        ).fetchall()
    ends = {"better": 1, "worse": 2}
    return {
        name: [Image.open(records.parent / row[0] / "images" / f"{row[at]:05d}.png") for row in chosen]
        for name, at in ends.items()
    }


def largest_gains(pairs: list[dict]) -> list[str]:
    """Names of pictures, one a prompt, from the largest sum of their scores' gains down."""
    gained = {pair["name"]: sum(after - before for _, before, after in pair["scores"]) for pair in pairs}
    best: dict[int, str] = {}
    for pair in sorted(pairs, key=lambda p: gained[p["name"]], reverse=True):
        best.setdefault(pair["prompt"], pair["name"])
    return list(best.values())


def run_of(name: str, runs: Path) -> Pictures:
    """The pictures of an example's run, kept in `runs`."""
    folder = runs / name
    if not (folder / "history.json").is_file():
        with Server(folder) as server:
            workflow = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
            graph = to_api(unpacked(workflow), server.get("/object_info"))
            history = server.run(graph, timeout=7200)
        (folder / "history.json").write_text(json.dumps([history, graph]), encoding="utf-8")
    history, graph = json.loads((folder / "history.json").read_text(encoding="utf-8"))
    return pictures_of(history, graph, folder)


def before_after(card: Image.Image, draw, found: Pictures) -> None:
    cards.rows(card, draw, [("before", found["before"][:3]), ("after: the largest gains", found["after"][:3])])


def as_app(card: Image.Image, draw, found: Pictures) -> None:
    cards.put(card, side_by_side(found["after"][:3]), (32, cards.TOP + 10, cards.SIDE - 32, 470))
    cards.sliders(draw, [("share of fidelity", 0.5), ("rounds", 0.1), ("subject", 0.05)], 492)


def side_by_side(pictures: list[Image.Image]) -> Image.Image:
    """Equal pictures in a row, with a narrow gap."""
    width, height, gap = *pictures[0].size, 4
    row = Image.new("RGB", ((width + gap) * len(pictures) - gap, height), cards.PAPER)
    for i, picture in enumerate(pictures):
        row.paste(picture.convert("RGB"), (i * (width + gap), 0))
    return row


def shows(*kinds: str, across: int = 1, last: bool = True) -> Callable:
    """A card with one picture of each of these nodes. last: the last that the node showed, else its first."""

    def drawn(card: Image.Image, draw, found: Pictures) -> None:
        cards.grid(card, [found[kind][-1 if last else 0] for kind in kinds], across)

    return drawn


def judged(card: Image.Image, draw, found: Pictures) -> None:
    cards.rows(card, draw, [("better", found["better"][:3]), ("worse", found["worse"][:3])])


def drafted(card: Image.Image, draw, found: Pictures) -> None:
    cards.rows(card, draw, [("drafts: 4 steps", found[SAMPLE][:1]), ("finished: 12 steps", found[FINISH][:1])])


def sketch(card: Image.Image, draw, found: Pictures) -> None:
    cards.plane(draw)


TOYBOX: dict[str, tuple[str, str, Callable]] = {
    "a_first_run": ("Your first run", "one click: a better LoRA", before_after),
    "a_first_run_as_an_app": ("Your first run, as an app", "three sliders and Run", as_app),
    "is_my_lora_any_good": (
        "Is my LoRA any good?",
        "files ranked on the same prompts",
        shows("DBDPO_CompareLoras", last=False),
    ),
    "toybox_quickstart": (
        "Stage by stage",
        "draw, score, pair, train: all of it seen",
        shows(SAMPLE, SCORE, PAIRS, LOOK, across=2),
    ),
    "toybox_three_rounds": ("Several rounds", "each better than the last, or it stops", shows("keep_2")),
    "toybox_drafts": ("Draft many, finish few", "cheap drafts choose what is drawn in full", drafted),
    "toybox_inspect_pairs": ("Be the judge", "keep, swap or reject pairs yourself", judged),
    "toybox_compare_epochs": ("Which epoch is best?", "twelve epochs of one LoRA, ranked", shows("DBDPO_CompareLoras")),
}
"""Title, line, and what is drawn of the run."""
OWN = {
    "sd15_lora_improve": "SD 1.5", "sdxl_lora_improve": "SDXL, Illustrious, Pony",
    **{name: files.title for name, files in FAMILIES.items()},
}  # fmt: skip
BETTER = "from your LoRA to a better one"


def card_of(name: str, runs: Path) -> Image.Image:
    title, line, drawn = TOYBOX[name] if name in TOYBOX else (OWN[name], BETTER, sketch)
    card, draw = cards.blank(title, line)
    drawn(card, draw, run_of(name, runs) if name in TOYBOX else {})
    return card


def save(card: Image.Image, path: Path) -> None:
    """As JPEG below the limit."""
    for quality in range(QUALITY, 30, -6):
        card.save(path, quality=quality, optimize=True)
        if path.stat().st_size < LIMIT:
            return
    raise ValueError(f"{path.name} is larger than {LIMIT} bytes at any quality: fewer or smaller pictures")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=sorted([*graphs(), *ONE_CLICK]))
    parser.add_argument("--runs", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as base:
        for name in given.names:
            start = time.monotonic()
            save(card_of(name, given.runs or Path(base)), FOLDER / f"{name}.jpg")
            kilobytes = (FOLDER / f"{name}.jpg").stat().st_size // 1024
            print(f"{name}: {kilobytes} KB, {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
