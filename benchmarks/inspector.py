"""How quick the inspector is in a browser: first paint, hover, steps and decisions on some 500 candidates.

    COMFYUI_PATH=~/ComfyUI python -m dreambooth_dpo.benchmarks.inspector --out runs/benchmark_inspector.json

A real ComfyUI runs a toybox graph up to Inspect Pairs, in a real Chromium (needs playwright; nothing is downloaded).
Times are wall milliseconds in the page, so on a busy machine they are upper bounds. First paint: from the node's result
being handed to a new panel until the frame is on the screen, and until its large pictures and photos are there. Hover:
from the pointer's event until the frame with the candidate's text is on the screen, and until its thumbnail is. Key:
the same for a step to the next pair and for a decision.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from ..dpo_core.run.files import write_json

PROMPTS = 30
NODE = "app.graph._nodes.find(n => n.type === 'DBDPO_InspectPairs')"
PAINTED = "const painted = () => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))"
PAINT = f"""async payload => {{
    {PAINTED}
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
UNWATCH = "kind => { document.querySelector('.dbdpo-inspect').removeEventListener(kind, window.watcher, true); return window.found }"
POINTS = """count => {
    const svg = document.querySelector('.dbdpo-cloud svg'), matrix = svg.getScreenCTM()
    const all = [...svg.querySelectorAll('.dbdpo-point')].flatMap(p => [...p.getAttribute('d').matchAll(/M([-0-9.]+) ([-0-9.]+)/g)])
    const every = Math.max(1, Math.floor(all.length / count))
    return all.filter((_, i) => i % every === 0).map(m => new DOMPoint(+m[1], +m[2]).matrixTransform(matrix)).map(p => [p.x, p.y])
}"""


def tests_folder() -> None:
    """The page and the server are those of the tests."""
    sys.path[:0] = [str(Path(__file__).parents[1] / folder) for folder in ("tests/support", "tools")]


def workflow(info: dict, candidates: int) -> dict:
    """A toybox graph up to the inspector, as the front end saves it."""
    from toy_graphs import toy_loop_graph
    from workflows import to_ui

    wide = {
        "angle_low": 0,
        "angle_high": 90,
        "margin": 0.05,
        "max_pairs_per_prompt": 14,
        "max_uses": 100,
        "rule": "angle_window",
    }
    whole = toy_loop_graph(
        sample={"candidates_per_prompt": -(-candidates // PROMPTS), "run_name": "inspector"}, pairs=wide
    )
    graph = {name: whole[name] for name in ("toy", "concept", "prompts", "sample", "scorer", "score", "pairs")}
    graph["inspect"] = {"class_type": "DBDPO_InspectPairs", "inputs": {"pairs": ["pairs", 0], "edits": ""}}
    for i, node in enumerate(graph.values()):
        node["pos"], node["size"] = [-1700 + 400 * (i % 4), 700 * (i // 4)], [360, 300]
    graph["inspect"] |= {"pos": [0, 0], "size": [1240, 960]}
    return to_ui(graph, info)


def summed(pairs: list[list[float]]) -> dict[str, Any]:
    """Median and worst of both columns, in milliseconds."""
    columns = list(zip(*pairs, strict=True))
    names = ("painted", "with_pictures")
    found = {
        n: {"median_ms": round(statistics.median(c), 1), "worst_ms": round(max(c), 1)}
        for n, c in zip(names, columns, strict=True)
    }
    return {"times": len(pairs), **found}


def measure(view: Any, server: Any, candidates: int, times: int) -> dict[str, Any]:
    from browsing import load, run

    saved = workflow(server.get("/object_info"), candidates)
    load(view, saved)
    history = run(view, server)
    if history["status"]["status_str"] != "success":
        raise SystemExit(f"the graph did not run: {history['status']}")
    payload = view.evaluate(f"JSON.parse(JSON.stringify(app.nodeOutputs[{NODE}.id].dbdpo_inspect[0]))")
    paints = []
    for _ in range(times):
        load(view, saved)
        view.evaluate(
            f"() => {{ const d = app.canvas.ds, n = {NODE}; d.scale = 1; d.offset[0] = 80; d.offset[1] = 90; n.pos = [0, 0] }}"
        )
        view.wait_for_timeout(500)
        paints.append(view.evaluate(PAINT, payload))
    view.mouse.move(*view.evaluate(POINTS, 1)[0])
    view.wait_for_timeout(5000)  # thumbnails are fetched once the pointer is on the cloud
    view.evaluate(WATCH, "pointermove")
    for point in view.evaluate(POINTS, 10 * times):
        view.mouse.move(*point)
        view.wait_for_timeout(120)
    hovers = view.evaluate(UNWATCH, "pointermove")
    view.locator(".dbdpo-inspect").focus()
    view.evaluate(WATCH, "keydown")
    for _ in range(3 * times):
        for key in ("r", "ArrowRight"):
            view.keyboard.press(key)
            view.wait_for_timeout(120)
    keys = view.evaluate(UNWATCH, "keydown")
    counts = {
        "candidates": len(payload["prompt"]),
        "pairs": len(payload["pairs"]),
        "payload_kilobytes": len(json.dumps(payload)) // 1024,
    }
    return {**counts, "first_paint": summed(paints), "hover": summed(hovers), "key": summed(keys)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, default=500)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark_inspector.json"))
    parser.add_argument("--picture", type=Path, help="Write a screenshot there.")
    arguments = parser.parse_args()
    tests_folder()
    from browsing import page, seed_settings
    from hosting import Server

    with tempfile.TemporaryDirectory() as base:
        seed_settings(Path(base))
        with Server(Path(base)) as server, page(server, 1500, 1150) as view:
            found = measure(view, server, arguments.candidates, arguments.times)
            if arguments.picture:
                view.screenshot(path=arguments.picture)
            assert not view.errors, view.errors
    print(json.dumps(found, indent=2))
    write_json(arguments.out, found)


if __name__ == "__main__":
    main()
