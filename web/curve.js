// A curve that lives: the numbers of a training, drawn on the node while it trains, and from the node's output ever after.

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { Plot } from "./curve/plot.js"
import { begin, leave, rounds, settle, take } from "./curve/store.js"
import { Views, innerOutputsOf, nodeOf, outputOf, recall, workflowId } from "./shared/nodes.js"

const HEIGHTS = [200, 280]
const OUTPUT = "dbdpo_curve"

/** What the outputs hold: a loop's node has one curve for every round, from the nodes that ran in its place. */
function kept(node) {
    const inner = innerOutputsOf(node, OUTPUT)
    const whole = outputOf(node, OUTPUT)
    return inner.length ? inner : whole && [whole]
}

const views = new Views("curve", (kind) => ["DBDPO_TrainStep", "DBDPO_Rounds"].includes(kind), HEIGHTS, (node) => {
    const plot = new Plot()
    return { root: plot.root, refresh: () => plot.show(rounds(workflowId(), (id) => nodeOf(id) === node) ?? kept(node)) }
})

let prompt = null

/** A loop's rounds, once the run is in the history: those that were at hand, or that this page missed while it was loaded, among them. */
async function readBack(id) {
    const [run] = await recall(id ? `/history/${id}` : "/history?max_items=1")
    const curves = (node) =>
        Object.entries(run?.meta ?? {}).filter(([inner, meta]) => meta.display_node === node && run.outputs?.[inner]?.[OUTPUT]).length
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
            if (!detail && views.any) readBack(prompt).catch(() => {}) // what was sent stays
        })
        api.addEventListener("dreambooth_dpo.curve", ({ detail }) => {
            take(detail)
            if (detail.workflow === workflowId()) views.refreshAll()
        })
    },
})
