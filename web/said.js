// What a node says after a run (its output's `text`), to be read on the node. The front ends draw it for their own preview nodes alone.

import { app } from "../../scripts/app.js"
import { Note } from "./said/note.js"
import { Views, innerOutputsOf, outputOf } from "./shared/nodes.js"

const HEIGHTS = [90, 240]

/** A loop's node says what the node that ran last in its place said; of an earlier visit that is what Keep Best Round keeps, if it was there. */
function textOf(node) {
    return outputOf(node, "text") ?? innerOutputsOf(node, "dbdpo_kept").at(-1) ?? innerOutputsOf(node, "text").at(-1) ?? null
}

/** On every node of the pack, once it has something to say: no list of them is needed. */
const views = new Views("said", (kind) => kind?.startsWith("DBDPO_"), HEIGHTS, (node) => {
    const note = new Note()
    return {
        root: note.root,
        refresh() {
            const text = textOf(node)
            if (text !== null) note.show(text) // while a loop's next node runs, the last words stay
        },
    }
}, (node) => textOf(node) !== null)

app.registerExtension(views.hooks)
