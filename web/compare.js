// Before and after under one line: the held-out pictures of Evaluate Before/After, which lie in the run's folder under ComfyUI's output.

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { Slider } from "./compare/slider.js"
import { Views, outputOf } from "./shared/nodes.js"

const HEIGHTS = [380, 620]

function url(subfolder, filename) {
    return api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type: "output" })}`)
}

const views = new Views("compare", ["DBDPO_Evaluate"], HEIGHTS, (node) => {
    const slider = new Slider(url)
    return { root: slider.root, refresh: () => slider.show(outputOf(node, "dbdpo_compare")) }
})

app.registerExtension(views.hooks)
