// A loop node shows the output of its inner node that ran last. At the end of a run, newer ComfyUI versions send the
// outputs of cached nodes again in arbitrary order, inner nodes of a loop included, so the loop node could end up
// showing the output of an earlier round.

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { nodeOf, outputKey } from "./shared/nodes.js"

/** Outputs of inner nodes in this run: by loop node, then by their own id. */
const shown = new Map()

/** The output to show: the last Keep Best Round, else the last training, else the highest id. */
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
        // Another workflow may be open by now, with another node of the same id.
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
