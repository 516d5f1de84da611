// Inspect Pairs: adds the inspector's panel to the node. Decisions are written to the node's hidden text widget
// `edits`, which Python declares: it is saved with the workflow, undone with it, and part of the node's cache key.

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { Panel } from "./inspect/panel.js"
import { Views, captureChange, outputOf, workflowId } from "./shared/nodes.js"

const SIZE = [1240, 960]
const HEIGHTS = [560, 4000]

/** The last panel by node name: loading a graph and undo create nodes anew. */
const last = new Map()
/** Number of panels that are remembered, the latest ones: each holds images. */
const REMEMBERED = 4
/** The node name whose panel has the keyboard focus. */
let focused = null

function url(parts, large = false) {
    return api.apiURL(`/dreambooth_dpo/${large ? "picture" : "preview"}?${new URLSearchParams(parts)}`)
}

function nameOf(node) {
    return `${workflowId()}|${node.graph?.id}|${node.id}`
}

/** The widget with the text of the edits, hidden. */
function hiddenText(node) {
    const text = node.widgets.find((widget) => widget.name === "edits")
    text.hidden = true
    text.options = { ...text.options, hidden: true }
    return text
}

function refresh(node, panel, text) {
    const name = nameOf(node)
    const before = last.get(name)
    if (before && before !== panel) panel.inherit(before)
    last.delete(name) // re-insert, so that the latest come last
    last.set(name, panel)
    while (last.size > REMEMBERED) last.delete(last.keys().next().value)
    panel.show(outputOf(node, "dbdpo_inspect"), text.value ?? "")
    if (focused === name && document.activeElement === document.body)
        requestAnimationFrame(() => panel.root.focus({ preventScroll: true }))
}

function view(node) {
    const text = hiddenText(node)
    const panel = new Panel({
        url,
        commit(value) {
            text.value = value
            captureChange()
        },
    })
    panel.root.addEventListener("focusin", () => (focused = nameOf(node)))
    const own = text.callback
    text.callback = function (...given) {
        own?.apply(this, given)
        refresh(node, panel, text)
    }
    node.setSize([...SIZE])
    return { root: panel.root, refresh: () => refresh(node, panel, text) }
}

document.addEventListener(
    "pointerdown",
    (event) => {
        if (!event.target.closest?.(".dbdpo-inspect")) focused = null
    },
    true,
)

app.registerExtension(new Views("inspect", (kind) => kind === "DBDPO_InspectPairs", HEIGHTS, view).hooks)
