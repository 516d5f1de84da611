// Widgets that are auto say whose value they take: "steps: auto (Z-Image: 25)". The family comes from the file of the
// loader that the model comes from, and after a run from the node's own output.

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { innerOutputsOf, outputOf } from "./shared/nodes.js"

const OUTPUT = "dbdpo_auto"
/** The widget of a loader that names its file, and the folder of that file. */
const LOADERS = [
    ["ckpt_name", "checkpoints"],
    ["unet_name", "diffusion_models"],
]
const MOST = 20

const families = new Map()
const nodes = new Set()

/** The inputs of a node's type whose value can be auto, with that value. */
function autoOf(node) {
    const { required = {}, optional = {} } = node.constructor.nodeData?.input ?? {}
    return Object.entries({ ...required, ...optional })
        .filter(([, entry]) => entry?.[1] && "dbdpo_auto" in entry[1])
        .map(([name, entry]) => [name, entry[1].dbdpo_auto])
}

/** The loader upstream of the node's model input, as [folder, name]; null if there is none in this graph. */
function fileOf(node) {
    let at = node
    for (let i = 0; at && i < MOST; i++) {
        for (const [widget, folder] of at === node ? [] : LOADERS) {
            const found = at.widgets?.find((one) => one.name === widget)
            if (found?.value) return [folder, String(found.value)]
        }
        const input = at.inputs?.findIndex((one) => one.type === "MODEL")
        at = input >= 0 ? at.getInputNode?.(input) : null
    }
    return null
}

/** The family of a file, {family, values} or null; asked for once. */
function familyOf(file) {
    const key = file.join("|")
    if (!families.has(key)) {
        const [folder, name] = file.map(encodeURIComponent)
        const asked = api
            .fetchApi(`/dreambooth_dpo/family?folder=${folder}&name=${name}`)
            .then((answer) => (answer.ok ? answer.json() : null))
            .catch(() => null) // without an answer the widgets keep their plain names
        families.set(key, asked)
    }
    return families.get(key)
}

const plain = (value) => (typeof value === "number" ? String(Number(value.toPrecision(4))) : value)

/** Writes the family's values into the labels of the widgets that are auto. */
function label(node, shown) {
    for (const [name, auto] of autoOf(node)) {
        const widget = node.widgets?.find((one) => one.name === name)
        if (!widget) continue
        widget.dbdpo_label ??= { own: widget.label }
        const value = shown?.values?.[name]
        const says = widget.value === auto && value !== undefined && value !== null
        const text = says ? `${name}: auto (${shown.family}: ${plain(value)})` : widget.dbdpo_label.own
        if (widget.label !== text) widget.label = text
    }
    node.setDirtyCanvas?.(true)
}

async function refresh(node) {
    if (!node.graph) return
    const ran = [outputOf(node, OUTPUT), ...innerOutputsOf(node, OUTPUT)].filter(Boolean)
    const file = fileOf(node)
    const shown = file ? await familyOf(file) : null
    const values = Object.assign({}, shown?.values, ...ran.map((one) => one.values))
    label(node, shown || ran.length ? { family: shown?.family ?? ran[0].family, values } : null)
}

const refreshAll = () => nodes.forEach((node) => void refresh(node))

app.registerExtension({
    name: "dreambooth_dpo.auto",
    setup: () => api.addEventListener("graphChanged", refreshAll),
    nodeCreated(node) {
        if (!node.comfyClass?.startsWith("DBDPO_") || !autoOf(node).length) return
        nodes.add(node)
        const { onRemoved, onConnectionsChange } = node
        node.onRemoved = function (...given) {
            nodes.delete(node)
            return onRemoved?.apply(this, given)
        }
        node.onConnectionsChange = function (...given) {
            requestAnimationFrame(() => void refresh(node))
            return onConnectionsChange?.apply(this, given)
        }
        for (const widget of node.widgets ?? []) {
            const own = widget.callback
            widget.callback = function (...given) {
                requestAnimationFrame(() => void refresh(node))
                return own?.apply(this, given)
            }
        }
    },
    afterConfigureGraph: refreshAll,
    onNodeOutputsUpdated: refreshAll,
})
