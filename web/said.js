// Shows a node's text output (`text`) on the node after a run. The front ends do this only for their own preview nodes.

import { app } from "../../scripts/app.js"
import { Note } from "./said/note.js"
import { Views, innerOutputsOf, outputOf } from "./shared/nodes.js"

const HEIGHTS = [90, 240]

/**
 * A loop node shows the text of the inner node that ran last. After a reload it shows the text of Keep Best Round, if
 * the loop has one.
 */
function textOf(node) {
    return (
        outputOf(node, "text") ??
        innerOutputsOf(node, "dbdpo_kept").at(-1) ??
        innerOutputsOf(node, "text").at(-1) ??
        null
    )
}

/** On every node of the pack, as soon as it has a text output. */
const views = new Views(
    "said",
    (kind) => kind?.startsWith("DBDPO_"),
    HEIGHTS,
    (node) => {
        const note = new Note(node.comfyClass === "DBDPO_Evaluate")
        return {
            root: note.root,
            refresh() {
                const text = textOf(node)
                if (text !== null) note.show(text) // while a loop's next node runs, the last text stays
            },
        }
    },
    { due: (node) => textOf(node) !== null, above: ["compare"] },
)

app.registerExtension(views.hooks)
