// Before and after under one line: the held-out pictures of Evaluate Before/After, which lie in the run's folder under ComfyUI's output.

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { Slider } from "./compare/slider.js"
import { Views, outputOf } from "./shared/nodes.js"

const HEIGHTS = [380, 620]

function url(subfolder, filename) {
    return api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type: "output" })}`)
}

/**
 * One picture on the node: its own, which the output names for the queue and the history, is not drawn beside the slider. Where there is nothing to
 * slide (a run that does not lie under ComfyUI's output) it is.
 */
function showAlone(node, there) {
    // Where nodes are HTML, this is what the front end asks.
    Object.defineProperty(node, "hideOutputImages", { configurable: true, get: there, set() {} })
    // On the canvas a node's pictures are hung on it while its ground is drawn.
    const draw = node.onDrawBackground
    node.onDrawBackground = function (...given) {
        if (!there()) return draw?.apply(this, given)
    }
}

const views = new Views("compare", (kind) => kind === "DBDPO_Evaluate", HEIGHTS, (node) => {
    const slider = new Slider(url)
    const shown = () => outputOf(node, "dbdpo_compare")
    showAlone(node, () => Boolean(shown()?.pairs?.length))
    return { root: slider.root, refresh: () => slider.show(shown()) }
})

app.registerExtension(views.hooks)
