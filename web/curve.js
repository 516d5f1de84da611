// The live training curve: drawn on the node during training, and from the node's output afterwards.

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { Plot } from "./curve/plot.js"
import { begin, leave, rounds, settle, take } from "./curve/store.js"
import { Views, innerOutputsOf, nodeOf, outputOf, recall, workflowId } from "./shared/nodes.js"

const HEIGHTS = [200, 280]
const OUTPUT = "dbdpo_curve"

/** The curves in the outputs: a loop node has one per round, from its inner nodes. */
function kept(node) {
    const inner = innerOutputsOf(node, OUTPUT)
    const whole = outputOf(node, OUTPUT)
    return inner.length ? inner : whole && [whole]
}

const views = new Views(
    "curve",
    (kind) => ["DBDPO_TrainStep", "DBDPO_Rounds"].includes(kind),
    HEIGHTS,
    (node) => {
        const plot = new Plot()
        return {
            root: plot.root,
            refresh: () => plot.show(rounds(workflowId(), (id) => nodeOf(id) === node) ?? kept(node)),
        }
    },
)

let prompt = null

/** Reads a loop's rounds from the history after a run, with cached ones and those missed while the page loaded. */
async function readBack(id) {
    const [run] = await recall(id ? `/history/${id}` : "/history?max_items=1")
    const curves = (node) =>
        Object.entries(run?.meta ?? {}).filter(
            ([inner, meta]) => meta.display_node === node && run.outputs?.[inner]?.[OUTPUT],
        ).length
    leave(id, curves)
    views.refreshAll()
}

app.registerExtension({
    ...views.hooks,
    setup() {
        api.addEventListener("execution_start", ({ detail }) => begin((prompt = detail.prompt_id)))
        api.addEventListener("execution_success", () => {
            settle()
            views.refreshAll()
        })
        api.addEventListener("executing", ({ detail }) => {
            if (!detail && views.any) readBack(prompt).catch(() => {}) // on failure the live curves stay
        })
        api.addEventListener("dreambooth_dpo.curve", ({ detail }) => {
            take(detail)
            if (detail.workflow === workflowId()) views.refreshAll()
        })
    },
})
