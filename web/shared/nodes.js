// What the pack's views on nodes have in common: which node an id of the server means, where its outputs lie, and how a view hangs on it.

import { api } from "../../../scripts/api.js"
import { app } from "../../../scripts/app.js"

const MARGIN = 10

/** The graph that is not inside another one. */
function rootGraph() {
    return app.rootGraph ?? app.graph?.rootGraph ?? app.graph
}

/** The workflow's own id: it is saved with it, and comes back from the server. */
export function workflowId() {
    return rootGraph()?.id ?? null
}

/** The node's key among app.nodeOutputs: in a subgraph with that graph's id. */
export function outputKey(node) {
    return !node.graph || node.graph === rootGraph() ? String(node.id) : `${node.graph.id}:${node.id}`
}

/** What the node's last run said under `name`, or null. */
export function outputOf(node, name) {
    return (app.nodeOutputs?.[outputKey(node)]?.[name] ?? lastOf(node)?.output?.[name])?.[0] ?? null
}

/** What the nodes that a loop's node ran in its place said under `name`, in their order. */
export function innerOutputsOf(node, name) {
    return (lastOf(node)?.inner ?? []).flatMap((output) => output[name]?.[0] ?? [])
}

/** Outputs of the server's last runs: by workflow, then by the server's id of the node. */
const remembered = new Map()

function lastOf(node) {
    for (const [id, last] of remembered.get(workflowId()) ?? []) if (nodeOf(id) === node) return last
    return null
}

function remember({ prompt, outputs = {}, meta = {} }) {
    const workflow = prompt?.[3]?.extra_pnginfo?.workflow?.id
    if (!workflow) return
    const nodes = remembered.get(workflow) ?? new Map()
    remembered.set(workflow, nodes)
    const inner = new Map()
    // The server lists them in no order; a loop counts its nodes by number.
    for (const id of Object.keys(outputs).sort((one, other) => one.localeCompare(other, "en", { numeric: true }))) {
        const shown = meta[id]?.display_node ?? id
        if (shown === id) nodes.set(id, { ...nodes.get(id), output: outputs[id] })
        else inner.set(shown, [...(inner.get(shown) ?? []), outputs[id]])
    }
    for (const [id, list] of inner) nodes.set(id, { ...nodes.get(id), inner: list })
}

/** Asks the server what its history holds; the runs. */
export async function recall(path) {
    const runs = Object.values(await (await api.fetchApi(path)).json())
    runs.forEach(remember)
    return runs
}

let recalled = null

/**
 * Once: a page that is loaded anew has no outputs, and a run that finds a node's result at hand sends them for the last nodes of a graph alone.
 */
function recallAll() {
    recalled ??= recall("/history?max_items=20").catch(() => {}) // without it the views wait for the next run
    return recalled
}

function byId(graph, id) {
    return graph?.getNodeById?.(id) ?? graph?.getNodeById?.(Number(id)) ?? null
}

/** The node that the server means: "12", or "5:12" for node 12 in the subgraph that node 5 shows, or "<graph's id>:12". */
export function nodeOf(id) {
    const path = String(id).split(":")
    const last = path.pop()
    let graph = rootGraph()
    for (const part of path) graph = byId(graph, part)?.subgraph ?? graph?.subgraphs?.get?.(part)
    return byId(graph, last)
}

function after(node, method, act) {
    const own = node[method]
    node[method] = function (...given) {
        const result = own?.apply(this, given)
        act()
        return result
    }
}

/**
 * Views of one kind on the nodes of some types: `fits(type)`. `make(node)` gives an object with `root`, an element, and `refresh()`, which draws
 * anew what the node's outputs hold; it is called whenever they may have changed. `heights` are the least and the most of the element, in graph
 * units. `due(node)`: a node has no view before this is true; without it each has one from the start.
 */
export class Views {
    constructor(name, fits, heights, make, due = () => true) {
        Object.assign(this, { name, fits, heights, make, due })
        this.views = new Map()
        this.waiting = new Set()
        this.last = new Map()
    }

    /** For app.registerExtension. */
    get hooks() {
        return {
            name: `dreambooth_dpo.${this.name}`,
            init: () => void recallAll().then(() => this.refreshAll()),
            nodeCreated: (node) => this.fits(node.comfyClass) && this.watch(node),
            afterConfigureGraph: () => this.refreshAll(),
            onNodeOutputsUpdated: () => this.refreshAll(),
        }
    }

    watch(node) {
        const soon = () => requestAnimationFrame(() => this.refresh(node))
        for (const method of ["onExecuted", "onConfigure"]) after(node, method, soon)
        after(node, "onRemoved", () => {
            this.views.delete(node)
            this.waiting.delete(node)
        })
        this.waiting.add(node)
        this.hangIfDue(node)
    }

    hangIfDue(node) {
        if (!this.waiting.has(node) || !this.due(node)) return
        this.waiting.delete(node)
        this.hang(node)
    }

    hang(node) {
        const view = this.make(node)
        const [least, most] = this.heights
        this.views.set(node, view)
        // Where nodes are HTML, the element's own style counts; on the canvas the options, which hold its margins, too.
        view.root.style.minHeight = `${least - 2 * MARGIN}px`
        const options = { serialize: false, hideOnZoom: false, getMinHeight: () => least, getMaxHeight: () => most }
        const widget = node.addDOMWidget(this.name, `dbdpo_${this.name}`, view.root, options)
        widget.serialize = false
        this.aboveThePicture(node, widget)
    }

    /** What the front end hangs on a node after a run, its picture or its live preview, has a name with "$$": a view stands above it. */
    aboveThePicture(node, widget) {
        const place = node.widgets.findIndex((other) => other.name?.startsWith("$$"))
        if (place < 0 || place > node.widgets.indexOf(widget)) return
        node.widgets.splice(node.widgets.indexOf(widget), 1)
        node.widgets.splice(place, 0, widget)
    }

    get any() {
        return this.views.size > 0
    }

    refreshAll() {
        // An earlier view matters while it is in the page; else it would be kept, with its pictures, for as long as the page is open.
        const current = new Set(this.views.values())
        for (const [key, view] of this.last) if (!current.has(view) && !view.root.isConnected) this.last.delete(key)
        for (const node of [...this.views.keys(), ...this.waiting]) this.refresh(node)
    }

    refresh(node) {
        if (node.graph) this.hangIfDue(node)
        const view = this.views.get(node)
        if (!view || !node.graph) return
        const key = `${workflowId()}|${outputKey(node)}`
        const old = this.last.get(key)
        // Where nodes are HTML, the element of the node as it was before an undo stays in the page.
        if (old !== view && old?.root.isConnected && !view.root.isConnected) old.root.replaceWith(view.root)
        this.last.set(key, view)
        view.refresh()
    }
}
