// The before/after slider of Evaluate Before/After. Its held-out images are in the run's folder under ComfyUI's output.

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { Slider } from "./compare/slider.js"
import { Views, outputOf } from "./shared/nodes.js"

const HEIGHTS = [380, 620]

function url(subfolder, filename) {
    return api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type: "output" })}`)
}

/**
 * Hides the node's own image (which the output names for the queue and the history) while the slider is shown. Without
 * slider images (a run outside ComfyUI's output folder) the node's image is drawn.
 */
function showAlone(node, there) {
    // The front end reads this for HTML nodes.
    Object.defineProperty(node, "hideOutputImages", { configurable: true, get: there, set() {} })
    // On the canvas, a node's images are added while its background is drawn.
    const draw = node.onDrawBackground
    node.onDrawBackground = function (...given) {
        if (!there()) return draw?.apply(this, given)
    }
}

const views = new Views(
    "compare",
    (kind) => kind === "DBDPO_Evaluate",
    HEIGHTS,
    (node) => {
        const slider = new Slider(url)
        const shown = () => outputOf(node, "dbdpo_compare")
        showAlone(node, () => Boolean(shown()?.pairs?.length))
        return { root: slider.root, refresh: () => slider.show(shown()) }
    },
)

app.registerExtension(views.hooks)
