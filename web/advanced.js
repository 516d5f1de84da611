// Fewer widgets on a node: advanced ones with their default and without a link are hidden until they are asked for, and
// those that have no effect with the values of the others are hidden. HTML nodes have a button of their own for
// advanced inputs; the canvas of no front end heeds what Python declares, so there button and hiding are made here.

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { definitions, tiers } from "./advanced/rules.js"

const BUTTON = "dbdpo_advanced"
/** A saved node's property: its height is that of the widgets shown. Without it, that of all widgets. */
const FITTED = "dbdpo_fitted"
const nodes = new Set()
let configuring = false

const html = () => Boolean(globalThis.LiteGraph?.vueNodesMode)
/** The front end's own setting; HTML nodes heed it themselves. */
const always = () => Boolean(app.extensionManager?.setting?.get?.("Comfy.Node.AlwaysShowAdvancedWidgets"))

function linkedOf(node) {
    const linked = (node.inputs ?? []).filter((input) => input.widget && input.link != null)
    return new Set(linked.map((input) => input.widget.name))
}

function tiersOf(node) {
    const values = Object.fromEntries((node.widgets ?? []).map((widget) => [widget.name, widget.value]))
    return tiers(definitions(node.constructor.nodeData), values, linkedOf(node))
}

/** Widgets that are hidden from here. Front end 1.58 says of linked ones too that they are hidden. */
const hiddenHere = new WeakSet()

/** Hides or shows a widget; returns whether that is a change. */
function hide(widget, hidden) {
    if (hiddenHere.has(widget) === hidden) return false
    hiddenHere[hidden ? "add" : "delete"](widget)
    widget.hidden = hidden
    if (widget.options) widget.options.hidden = hidden
    return true
}

/** HTML nodes hide by this option: an advanced input with a value of its own is none. */
function mark(widget, advanced) {
    if (!widget.options || Boolean(widget.options.advanced) === advanced) return false
    widget.options.advanced = advanced
    return true
}

/** The button of canvas nodes, below the widgets that are saved: their order must not change. */
function addButton(node) {
    const press = () => {
        node.showAdvanced = !node.showAdvanced
        refresh(node, true)
    }
    const button = node.addWidget("button", BUTTON, null, press, { serialize: false, canvasOnly: true })
    button.serialize = false
    const defined = definitions(node.constructor.nodeData)
    node.widgets.splice(node.widgets.indexOf(button), 1)
    node.widgets.splice(node.widgets.findLastIndex((widget) => widget.name in defined) + 1, 0, button)
}

/** Shows what is to be shown. `resize`: the node gets taller or smaller with it, as a saved graph's must not. */
function refresh(node, resize = false) {
    const tier = tiersOf(node)
    const all = html() || node.showAdvanced || always()
    const height = node.computeSize?.()[1]
    let changed = false
    for (const widget of node.widgets ?? []) {
        const name = widget.name
        if (!tier[name]) continue
        changed = hide(widget, tier[name] === "unused" || (tier[name] === "advanced" && !all)) || changed
        changed = mark(widget, tier[name] === "advanced") || changed
    }
    const button = node.widgets?.find((widget) => widget.name === BUTTON)
    if (button) {
        const count = Object.values(tier).filter((one) => one === "advanced").length
        button.label = node.showAdvanced ? "Hide advanced inputs" : `Show advanced inputs (${count})`
        changed = hide(button, html() || always() || !count) || changed
    }
    if (changed && resize && !html()) {
        const least = node.computeSize()[1]
        node.setSize([node.size[0], Math.max(least, node.size[1] + least - height)])
    }
    node.setDirtyCanvas?.(true, true)
}

/** The height of a widget on the canvas; rows of HTML nodes are taller. */
function rowOf(node, widget) {
    const text = widget.element && widget.computeLayoutSize?.(node)?.minHeight
    return (text || LiteGraph.NODE_WIDGET_HEIGHT) + 4
}

/** Takes the rows of hidden widgets off the height of a node whose height was made for all of them. */
function shrink(node, saved) {
    if (saved?.properties?.[FITTED] || !node.computeSize) return
    const tier = tiersOf(node)
    const hides = (name) => tier[name] === "unused" || (tier[name] === "advanced" && !node.showAdvanced && !always())
    const hidden = (node.widgets ?? []).filter((widget) => hides(widget.name))
    const rows = hidden.reduce((sum, widget) => sum + rowOf(node, widget), 0)
    if (rows) node.setSize([node.size[0], Math.max(node.computeSize()[1], node.size[1] - rows)])
}

const refreshAll = () => nodes.forEach((node) => node.graph && refresh(node))

/** Calls `act` after the node's or widget's own method and once more when the page has done its part. */
function after(target, method, act) {
    const own = target[method]
    target[method] = function (...given) {
        const result = own?.apply(this, given)
        act()
        requestAnimationFrame(act)
        return result
    }
}

app.registerExtension({
    name: "dreambooth_dpo.advanced",
    setup() {
        api.addEventListener("graphChanged", refreshAll)
        app.ui?.settings?.addEventListener?.("Comfy.VueNodes.Enabled.change", () => setTimeout(refreshAll))
    },
    nodeCreated(node) {
        const defined = Object.values(definitions(node.constructor.nodeData))
        const some = defined.some((one) => one.advanced || one.dbdpo_used_with)
        if (!node.comfyClass?.startsWith("DBDPO_") || !some) return
        nodes.add(node)
        if (defined.some((one) => one.advanced)) addButton(node)
        after(node, "onRemoved", () => nodes.delete(node))
        const { onConfigure, onSerialize } = node
        node.onConfigure = function (saved) {
            const result = onConfigure?.apply(this, arguments)
            refresh(this)
            shrink(this, saved)
            requestAnimationFrame(() => refresh(this))
            return result
        }
        node.onSerialize = function (saved) {
            const result = onSerialize?.apply(this, arguments)
            saved.properties = { ...saved.properties, [FITTED]: true }
            return result
        }
        after(node, "onConnectionsChange", () => refresh(node, !configuring))
        for (const widget of node.widgets ?? [])
            if (widget.name !== BUTTON) after(widget, "callback", () => refresh(node, true))
        refresh(node, true)
    },
    beforeConfigureGraph: () => void (configuring = true),
    afterConfigureGraph() {
        configuring = false
        refreshAll()
    },
})
