// A loop's node shows what the node that ran last in its place showed. Newer ComfyUIs send, at the end of a run, what nodes with results at hand
// showed earlier, in no order, those of a loop among them: one of an earlier round would then stand on the loop's node.

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { nodeOf, outputKey } from "./shared/nodes.js"

/** Of this run: outputs of the nodes in a loop's place, by the loop's node, then by their own id. */
const shown = new Map()

/** What stands last: which round is kept, else the last training, else whatever was numbered highest. */
function lastOf(outputs) {
    const ids = [...outputs.keys()].sort((one, other) => one.localeCompare(other, "en", { numeric: true }))
    const last = (test) => outputs.get(ids.findLast((id) => test(outputs.get(id))))
    return last((output) => output.dbdpo_kept) ?? last((output) => output.dbdpo_curve) ?? last(() => true)
}

function same(one, other) {
    return JSON.stringify(one) === JSON.stringify(other)
}

function settle() {
    for (const [id, outputs] of shown) {
        const node = nodeOf(id)
        if (!node?.comfyClass?.startsWith("DBDPO_")) continue
        const [now, last] = [app.nodeOutputs?.[outputKey(node)], lastOf(outputs)]
        // Another workflow may be open by now, with another node of this number.
        if (!now || same(now, last) || ![...outputs.values()].some((output) => same(output, now))) continue
        app.nodeOutputs[outputKey(node)] = last
        node.onExecuted?.(last)
    }
    shown.clear()
}

app.registerExtension({
    name: "dreambooth_dpo.loops",
    setup() {
        api.addEventListener("execution_start", () => shown.clear())
        api.addEventListener("executed", ({ detail: { node, display_node: loop, output } }) => {
            if (!output || !loop || loop === node) return
            shown.set(loop, (shown.get(loop) ?? new Map()).set(node, output))
        })
        api.addEventListener("execution_success", settle)
    },
})
