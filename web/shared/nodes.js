// Shared by the pack's views on nodes: resolve a server id to a node, read the node's outputs, attach a view to it.

import { api } from "../../../scripts/api.js"
import { app } from "../../../scripts/app.js"

const MARGIN = 10

/** The top-level graph. */
function rootGraph() {
    return app.rootGraph ?? app.graph?.rootGraph ?? app.graph
}

/** The id that is saved with the workflow and that the server sends back. */
export function workflowId() {
    return rootGraph()?.id ?? null
}

/** The node's key in app.nodeOutputs; for a node in a subgraph it contains that graph's id. */
export function outputKey(node) {
    return !node.graph || node.graph === rootGraph() ? String(node.id) : `${node.graph.id}:${node.id}`
}

/** The output `name` of the node's last run, or null. */
export function outputOf(node, name) {
    return (app.nodeOutputs?.[outputKey(node)]?.[name] ?? lastOf(node)?.output?.[name])?.[0] ?? null
}

/** The outputs `name` of the inner nodes that a loop node expanded to, in their order. */
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
    // The server lists outputs in arbitrary order; the ids of a loop's inner nodes are numbered.
    for (const id of Object.keys(outputs).sort((one, other) => one.localeCompare(other, "en", { numeric: true }))) {
        const shown = meta[id]?.display_node ?? id
        if (shown === id) nodes.set(id, { ...nodes.get(id), output: outputs[id] })
        else inner.set(shown, [...(inner.get(shown) ?? []), outputs[id]])
    }
    for (const [id, list] of inner) nodes.set(id, { ...nodes.get(id), inner: list })
}

/** Reads runs from the server's history, remembers their outputs and returns the runs. */
export async function recall(path) {
    const runs = Object.values(await (await api.fetchApi(path)).json())
    runs.forEach(remember)
    return runs
}

let recalled = null

/**
 * Runs once. After a reload the page has no outputs, and a run with cached results sends outputs only for the last
 * nodes of a graph.
 */
function recallAll() {
    recalled ??= recall("/history?max_items=20").catch(() => {}) // on failure the views wait for the next run
    return recalled
}

function byId(graph, id) {
    return graph?.getNodeById?.(id) ?? graph?.getNodeById?.(Number(id)) ?? null
}

/** The node for a server id: "12", "5:12" (node 12 in the subgraph of node 5) or "<graph id>:12". */
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
 * Views of one kind on all nodes whose type passes `fits(type)`. `make(node)` returns an object with `root` (an
 * element) and `refresh()`, which redraws the node's outputs and is called whenever they may have changed. `heights`
 * are the minimum and maximum height of the element, in graph units. A node gets its view once `due(node)` is true;
 * without `due` it gets it at once. `above`: names of views that it is placed above.
 */
export class Views {
    constructor(name, fits, heights, make, due = () => true, above = []) {
        Object.assign(this, { name, fits, heights, make, due, above })
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
        // HTML nodes use the element's style; canvas nodes use the options, whose heights include margins.
        view.root.style.minHeight = `${least - 2 * MARGIN}px`
        const options = { serialize: false, hideOnZoom: false, getMinHeight: () => least, getMaxHeight: () => most }
        const widget = node.addDOMWidget(this.name, `dbdpo_${this.name}`, view.root, options)
        widget.serialize = false
        this.aboveThePicture(node, widget)
    }

    /**
     * Widgets that the front end adds to a node after a run (its image or live preview) have names that start with
     * "$$": the view is placed above them.
     */
    aboveThePicture(node, widget) {
        const lower = (name) => name?.startsWith("$$") || this.above.includes(name)
        const place = node.widgets.findIndex((other) => lower(other.name))
        if (place < 0 || place > node.widgets.indexOf(widget)) return
        node.widgets.splice(node.widgets.indexOf(widget), 1)
        node.widgets.splice(place, 0, widget)
    }

    get any() {
        return this.views.size > 0
    }

    refreshAll() {
        // Drop earlier views that left the page; otherwise they and their images stay in memory.
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
        // With HTML nodes, the old node's element stays in the page after an undo: replace it.
        if (old !== view && old?.root.isConnected && !view.root.isConnected) old.root.replaceWith(view.root)
        this.last.set(key, view)
        view.refresh()
    }
}
