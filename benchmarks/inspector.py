"""Latency of the inspector in a browser: first paint, hover, steps and decisions with some 500 candidates.

    COMFYUI_PATH=~/ComfyUI python -m dreambooth_dpo.benchmarks.inspector --out runs/benchmark_inspector.json

A real ComfyUI runs the example toybox_inspect_pairs up to Inspect Pairs, in a real Chromium (needs playwright; nothing
is downloaded). Times are wall milliseconds in the page: on a busy machine they are upper bounds. First paint: from the
node's result in a new panel to the frame on the screen, and to its large pictures and photos. Hover: from the pointer's
event to the frame with the candidate's text, and to its thumbnail. Key: the same for a step to the next pair and for a
decision.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from .common.comfyui_page import load, page, run, seed_settings, set_widgets
from .common.comfyui_server import ROOT, Server
from .common.command import command_parser, write_result

EXAMPLE = ROOT / "example_workflows" / "toybox_inspect_pairs.json"
KIND = "DBDPO_InspectPairs"
PROMPTS = 30
"""Training prompts of the example."""
NEVER = 2
"""The mode of a node that the front end leaves out of a run."""
WIDE = {"rule": "angle_window", "angle_low": 0, "angle_high": 90, "margin": 0.05}
WIDE |= {"max_pairs_per_prompt": 14, "max_uses": 100}
"""Build Pairs: as many pairs as there may be."""
NODE = f"app.graph._nodes.find(n => n.type === '{KIND}')"
PLACE = f"""() => {{
    const ds = app.canvas.ds, node = {NODE}
    ds.scale = 1
    ds.offset[0] = 80
    ds.offset[1] = 90
    node.pos = [0, 0]
}}"""
PAINT = f"""async payload => {{
    const frame = () => new Promise(done => requestAnimationFrame(done))
    const painted = async () => {{ await frame(); await frame(); await new Promise(done => setTimeout(done)) }}
    const node = {NODE}
    const begun = performance.now()
    app.nodeOutputs[node.id] = {{ dbdpo_inspect: [payload] }}
    node.onExecuted(app.nodeOutputs[node.id])
    await painted()
    const first = performance.now() - begun
    const pictures = [...document.querySelectorAll('.dbdpo-inspect figure:not([hidden]) img, .dbdpo-photos img')]
    await Promise.all(pictures.map(i => i.decode()))
    return [first, performance.now() - begun]
}}"""
WATCH = """kind => {
    window.found = []
    const tip = document.querySelector('.dbdpo-tip'), panel = document.querySelector('.dbdpo-inspect')
    window.watcher = event => {
        const before = tip.textContent
        requestAnimationFrame(() => setTimeout(async () => {
            const took = performance.now() - event.timeStamp
            if (kind === 'keydown') return found.push([took, took])
            if (tip.hidden || tip.textContent === before) return
            await tip.querySelector('img').decode()
            found.push([took, performance.now() - event.timeStamp])
        }))
    }
    panel.addEventListener(kind, window.watcher, true)
}"""
UNWATCH = """kind => {
    document.querySelector('.dbdpo-inspect').removeEventListener(kind, window.watcher, true)
    return window.found
}"""
POINTS = """count => {
    const svg = document.querySelector('.dbdpo-cloud svg'), matrix = svg.getScreenCTM()
    const moves = path => [...path.getAttribute('d').matchAll(/M([-0-9.]+) ([-0-9.]+)/g)]
    const all = [...svg.querySelectorAll('.dbdpo-point')].flatMap(moves)
    const every = Math.max(1, Math.floor(all.length / count))
    const chosen = all.filter((_, i) => i % every === 0)
    return chosen.map(m => new DOMPoint(+m[1], +m[2]).matrixTransform(matrix)).map(p => [p.x, p.y])
}"""


def example_up_to_inspector() -> dict:
    """The example, in which only Inspect Pairs and the nodes that it depends on run."""
    workflow = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    inspector = next(n for n in workflow["nodes"] if n["type"] == KIND)
    needed, found = {inspector["id"]}, {inspector["id"]}
    while found:
        found = {source for _, source, _, target, *_ in workflow["links"] if target in found} - needed
        needed |= found
    for node in workflow["nodes"]:
        if node["id"] not in needed:
            node["mode"] = NEVER
    return workflow


def in_milliseconds(pairs: list[list[float]]) -> dict[str, Any]:
    """Median and worst of both columns: painted, and with pictures."""
    found: dict[str, Any] = {"times": len(pairs)}
    for name, column in zip(("painted", "with_pictures"), zip(*pairs, strict=True), strict=True):
        found[name] = {"median_ms": round(statistics.median(column), 1), "worst_ms": round(max(column), 1)}
    return found


def run_example(view: Any, server: Server, workflow: dict, candidates: int) -> dict:
    """Run the example with about `candidates` candidates; the inspector's result."""
    load(view, workflow)
    drawing = {"candidates_per_prompt": -(-candidates // PROMPTS), "steps": 6, "run_name": "inspector"}
    short = {"DBDPO_LoadToybox": {"steps": 20}}
    set_widgets(view, {**short, "DBDPO_SampleCandidates": drawing, "DBDPO_BuildPairs": WIDE})
    history = run(view, server)
    if history["status"]["status_str"] != "success":
        raise SystemExit(f"the graph failed: {history['status']}")
    return view.evaluate(f"JSON.parse(JSON.stringify(app.nodeOutputs[{NODE}.id].dbdpo_inspect[0]))")


def watched(view: Any, kind: str, act: Any) -> list[list[float]]:
    """Times of all events of a kind while `act` runs."""
    view.evaluate(WATCH, kind)
    act()
    return view.evaluate(UNWATCH, kind)


def measure(view: Any, server: Server, candidates: int, times: int) -> dict[str, Any]:
    workflow = example_up_to_inspector()
    payload = run_example(view, server, workflow, candidates)
    paints = []
    for _ in range(times):
        load(view, workflow)
        view.evaluate(PLACE)
        view.wait_for_timeout(500)
        paints.append(view.evaluate(PAINT, payload))

    def hover() -> None:
        for point in view.evaluate(POINTS, 10 * times):
            view.mouse.move(*point)
            view.wait_for_timeout(120)

    def press() -> None:
        for key in ("r", "ArrowRight") * (3 * times):
            view.keyboard.press(key)
            view.wait_for_timeout(120)

    view.mouse.move(*view.evaluate(POINTS, 1)[0])
    view.wait_for_timeout(5000)  # thumbnails are fetched when the pointer is on the cloud for the first time
    hovers = watched(view, "pointermove", hover)
    view.locator(".dbdpo-inspect").focus()
    keys = watched(view, "keydown", press)
    counts = {"candidates": len(payload["prompt"]), "pairs": len(payload["pairs"])}
    counts["payload_kilobytes"] = len(json.dumps(payload)) // 1024
    timed = {"first_paint": paints, "hover": hovers, "key": keys}
    return {**counts, **{name: in_milliseconds(found) for name, found in timed.items()}}


def main() -> None:
    parser = command_parser(__doc__, "benchmark_inspector.json")
    parser.add_argument("--candidates", type=int, default=500)
    parser.add_argument("--times", type=int, default=5, help="first paints; 10 hovers and 6 keys for each")
    parser.add_argument("--picture", type=Path, help="file for a screenshot")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as base:
        seed_settings(Path(base))
        with Server(Path(base)) as server, page(server, 1500, 1150) as view:
            found = measure(view, server, args.candidates, args.times)
            if args.picture:
                view.screenshot(path=args.picture)
            assert not view.errors, view.errors
    print(json.dumps(found, indent=2))
    write_result(args.out, found)


if __name__ == "__main__":
    main()
