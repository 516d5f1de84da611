// Restores the widget values of graphs saved by older versions and reports it; saved graphs record the pack's version.

import { app } from "../../scripts/app.js"
import { before, namesOf, restored } from "./saved/widgets.js"
import { VERSION } from "./version.js"

/** Restored widgets of the graph being loaded, by node title. */
let changed = new Map()

/**
 * Records each saved node's widget names before the front end adds today's inputs. The property is never saved with a
 * graph.
 */
function note(graph) {
    for (const node of graph?.nodes ?? [])
        if (node.type?.startsWith?.("DBDPO_")) node.dbdpo_saved_widgets = namesOf(node)
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
    const detail =
        "This graph was saved by an older version of DreamBooth DPO. These widgets were set to the saved values or, " +
        `if the graph has none, to the behaviour of that version: ${nodes}.`
    changed = new Map()
    console.info(`[dreambooth_dpo] ${detail}`)
    app.extensionManager?.toast?.add({
        severity: "info",
        summary: "DreamBooth DPO: an older graph",
        detail,
        life: 15000,
    })
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
