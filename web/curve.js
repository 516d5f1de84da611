// A curve that lives: the numbers of a training, drawn on the node while it trains, and from the node's output ever after.

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { Plot } from "./curve/plot.js"
import { begin, rounds, settle, take } from "./curve/store.js"
import { Views, nodeOf, outputOf, workflowId } from "./shared/nodes.js"

const HEIGHTS = [200, 280]

const views = new Views("curve", ["DBDPO_TrainStep", "DBDPO_Rounds"], HEIGHTS, (node) => {
    const plot = new Plot()
    const kept = () => {
        const whole = outputOf(node, "dbdpo_curve")
        return whole && [whole]
    }
    return { root: plot.root, refresh: () => plot.show(rounds(workflowId(), (id) => nodeOf(id) === node) ?? kept()) }
})

app.registerExtension({
    ...views.hooks,
    setup() {
        api.addEventListener("execution_start", ({ detail }) => begin(detail.prompt_id))
        api.addEventListener("execution_success", () => {
            settle()
            views.refreshAll()
        })
        api.addEventListener("dreambooth_dpo.curve", ({ detail }) => {
            take(detail)
            if (detail.workflow === workflowId()) views.refreshAll()
        })
    },
})
