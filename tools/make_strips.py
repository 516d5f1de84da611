"""Records both blueprints as strips of six frames, and counts clicks and seconds up to the first saved LoRA.

`python tools/make_strips.py [first_run] [improve] [compare] [--small]` uses the newest front end and the toybox, writes
docs/img/one_click_improve.jpg and one_click_compare.jpg, and prints for `first_run` the clicks and seconds from the
opened page to the saved LoRA. --small: few steps and candidates, for a look at the pages only.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from browsing import FRONT_ENDS, finished, page, press_run, seed_settings
from hosting import ROOT, Server
from one_click_page import SMALL, insert, link_toybox, named, prepare, saved_loras, set_part
from PIL import Image, ImageDraw, ImageFont

from dreambooth_dpo.toybox.concepts import concept_from_seed
from dreambooth_dpo.toybox.prompts import train_and_held_out

WIDTH, HEIGHT = 1280, 800
FRAME, ACROSS, TITLE, LIMIT = 640, 3, 30, 300_000
"""Width of a frame and frames in a row, height of a title (pixels), greatest size of a strip (bytes)."""
TOY = {"scorer": "toybox reward", "judge": "toybox judge", "preset": "own text"}
_SIZE = {"width": 64, "height": 64}
_DRAWN = {**_SIZE, "steps": 12, "cfg": 1.0}
AUTO = {"CenterCropImages": _SIZE, "DBDPO_Rounds": _DRAWN, "DBDPO_CompareLoras": _DRAWN}
"""Inner values for the toybox: its size and sampling. All else stays auto."""


class Strip:
    """Frames of a page with their titles."""

    def __init__(self, view) -> None:
        self.view, self.frames = view, []

    def take(self, title: str) -> None:
        self.frames.append((title, Image.open(io.BytesIO(self.view.screenshot())).convert("RGB")))

    def save(self, path: Path) -> None:
        height = FRAME * HEIGHT // WIDTH
        down = -(-len(self.frames) // ACROSS)
        whole = Image.new("RGB", (ACROSS * FRAME, down * (height + TITLE)), "white")
        draw = ImageDraw.Draw(whole)
        for i, (title, picture) in enumerate(self.frames):
            x, y = i % ACROSS * FRAME, i // ACROSS * (height + TITLE)
            draw.text((x + 8, y + 5), f"{i + 1}  {title}", "black", ImageFont.load_default(19))
            whole.paste(picture.resize((FRAME, height), Image.Resampling.LANCZOS), (x, y + TITLE))
        for quality in range(80, 30, -8):
            whole.save(path, quality=quality, optimize=True)
            if path.stat().st_size < LIMIT:
                break
        print(f"{path.name}: {len(self.frames)} frames, {path.stat().st_size // 1024} KB", flush=True)


def results(view, ends: list[str]) -> None:
    """Nodes that show these outputs of the blueprint's node, at its right."""
    view.evaluate(
        """ends => {
            const part = app.graph._nodes.find(n => n.isSubgraphNode?.())
            ends.forEach((name, i) => {
                const slot = part.outputs.findIndex(o => o.name === name)
                const kind = part.outputs[slot].type === "IMAGE" ? "PreviewImage" : "PreviewAny"
                const node = LiteGraph.createNode(kind)
                node.pos = [part.pos[0] + 460, part.pos[1] + i * 380]
                node.size = [440, 320]
                app.graph.add(node)
                part.connect(slot, node, 0)
            })
            const ds = app.canvas.ds
            ds.scale = 0.72
            ds.offset[0] = 90 / ds.scale - part.pos[0] + 400
            ds.offset[1] = 150 / ds.scale - part.pos[1]
            app.canvas.setDirty(true, true)
        }""",
        ends,
    )
    view.wait_for_timeout(1200)


def record(view, server: Server, name: str, values: dict, inner: dict, ends: list[str], path: Path) -> dict:
    """One blueprint from the search to its results; the run's history entry."""
    strip = Strip(view)
    view.evaluate("app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    view.wait_for_function("app.graph._nodes.length === 0")
    insert(view, name, lambda: strip.take("Double click on the canvas, type its name"))
    view.wait_for_timeout(800)
    strip.take("Enter: the whole work is one node")
    link_toybox(view)
    results(view, ends)
    set_part(view, values, inner)
    view.wait_for_timeout(800)
    strip.take("Link a model, choose LoRA and photos")
    status, answer = press_run(view)
    assert status == 200 and not answer["node_errors"], answer
    view.wait_for_timeout(40_000)
    strip.take("Run")
    history = finished(view, server, answer["prompt_id"], 3600)
    assert history["status"]["status_str"] == "success", history["status"]
    view.wait_for_timeout(4000)
    strip.take("Results")
    view.evaluate(
        """() => {
            const part = app.graph._nodes.find(n => n.isSubgraphNode?.())
            app.canvas.openSubgraph(part.subgraph, part)
        }"""
    )
    view.wait_for_timeout(1500)
    view.evaluate("app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    view.wait_for_timeout(2500)
    strip.take("Inside: every node, to look at or to change")
    strip.save(path)
    return history


def cpu_seconds(server: Server) -> float:
    """CPU time that the server has used so far: what a run costs, whatever else the machine does. Linux only."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def first_run(view, server: Server) -> None:
    """Templates, a few letters, the card, Run: counted by the page itself."""
    view.evaluate("window.clicks = 0; window.addEventListener('pointerdown', () => window.clicks++, true)")
    start = time.monotonic()
    view.get_by_role("button", name="Templates").filter(visible=True).first.click()
    view.get_by_placeholder("Search").last.wait_for()
    view.keyboard.type("a first run")
    view.get_by_test_id("template-workflow-a_first_run").click()
    view.wait_for_function("app.graph._nodes.some(n => n.isSubgraphNode?.())")
    opened, used = time.monotonic() - start, cpu_seconds(server)
    status, answer = press_run(view)
    assert status == 200, answer
    history = finished(view, server, answer["prompt_id"], 3600)
    [name] = saved_loras(history)
    print(
        f"first run: {view.evaluate('window.clicks')} clicks; opened after {opened:.0f} s,"
        f" {name} saved after {time.monotonic() - start:.0f} s"
        f" ({cpu_seconds(server) - used:.0f} s of CPU time in the run)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=["first_run", "improve", "compare"])
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    train, held_out = train_and_held_out(concept_from_seed(0))
    prompts = {"text": "\n".join(train), "held_out_text": "\n".join(held_out)}
    inner = {**(SMALL if given.small else AUTO), "DBDPO_PromptSet": prompts}
    images = ROOT / "docs" / "img"
    kind = FRONT_ENDS["nodes2"]
    with tempfile.TemporaryDirectory() as base:
        seed_settings(Path(base), **kind.settings)
        with Server(Path(base), *kind.arguments) as server:
            loras = prepare(server, steps=4 if given.small else 120, epochs=2)
            with page(server, WIDTH, HEIGHT) as view:
                if "first_run" in given.what:
                    first_run(view, server)
                subject = {**TOY, **named()}
                if "improve" in given.what:
                    values = {**subject, "lora_name": loras[-1], "rounds": 1}
                    ends, path = ["before_after", "report"], images / "one_click_improve.jpg"
                    record(view, server, "Improve my LoRA", values, inner, ends, path)
                if "compare" in given.what:
                    ends, path = ["sheet", "report"], images / "one_click_compare.jpg"
                    values = {**subject, "loras": "\n".join(loras)}
                    record(view, server, "Is my LoRA any good", values, inner, ends, path)


if __name__ == "__main__":
    main()
