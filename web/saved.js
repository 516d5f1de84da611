// Graphs of older versions open with their own values, and say so; a graph that is saved names the version of the pack.

import { app } from "../../scripts/app.js"
import { before, namesOf, restored } from "./saved/widgets.js"
import { VERSION } from "./version.js"

/** Of the graph that is being loaded: what was set, by node title. */
let changed = new Map()

/** Before the front end completes a saved node's inputs by those of today: under a name of our own, which no graph is saved with. */
function note(graph) {
    for (const node of graph?.nodes ?? []) if (node.type?.startsWith?.("DBDPO_")) node.dbdpo_saved_widgets = namesOf(node)
    for (const inner of graph?.definitions?.subgraphs ?? []) note(inner)
}

function restore(node, saved) {
    const earlier = before(node.constructor.nodeData)
    const values = restored(earlier, node.widgets ?? [], saved.dbdpo_saved_widgets, saved.widgets_values)
    delete node.dbdpo_saved_widgets
    const names = []
    for (const widget of node.widgets ?? []) {
        if (!(widget.name in values) || widget.value === values[widget.name]) continue
        widget.value = values[widget.name]
        names.push(widget.name)
    }
    if (names.length) changed.set(node.title ?? node.comfyClass, names)
}

function tell() {
    if (!changed.size) return
    const nodes = [...changed].map(([title, names]) => `${title}: ${names.join(", ")}`).join("; ")
    const detail = `It was saved by an older version of DreamBooth DPO. These widgets have the values that the graph had, or what that version did: ${nodes}.`
    changed = new Map()
    console.info(`[dreambooth_dpo] ${detail}`)
    app.extensionManager?.toast?.add({ severity: "info", summary: "DreamBooth DPO: an older graph", detail, life: 15000 })
}

app.registerExtension({
    name: "dreambooth_dpo.saved",
    nodeCreated(node) {
        if (!node.comfyClass?.startsWith("DBDPO_")) return
        const [configured, serialized] = [node.onConfigure, node.onSerialize]
        node.onConfigure = function (saved) {
            const result = configured?.apply(this, arguments)
            restore(this, saved)
            return result
        }
        node.onSerialize = function (saved) {
            const result = serialized?.apply(this, arguments)
            saved.properties = { ...saved.properties, dreambooth_dpo: VERSION }
            return result
        }
    },
    beforeConfigureGraph: note,
    afterConfigureGraph: tell,
})
