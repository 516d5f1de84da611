// The panel of DPO Rounds: progress and time left of the whole run, pictures and scores of the rounds measured so far,
// a button that ends the loop with its best round, and one that opens the report.

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { Panel } from "./rounds/panel.js"
import { finish, start, stateOf, take } from "./rounds/store.js"
import { Views, innerOutputsOf, nodeOf, outputOf, workflowId } from "./shared/nodes.js"

const HEIGHTS = [330, 430]
const OUTPUT = "dbdpo_rounds"
const TICK = 1000

/** What Keep Best Round measured in the last run; after a reload from the server's history. */
function kept(node) {
    return outputOf(node, OUTPUT) ?? innerOutputsOf(node, OUTPUT).at(-1) ?? null
}

/** The widget's value says which run's report is there, also before any run on this page. */
function runName(node) {
    return node.widgets?.find((widget) => widget.name === "run_name")?.value ?? ""
}

async function stop(state) {
    const body = JSON.stringify({ run: state.run, token: state.token })
    const headers = { "Content-Type": "application/json" }
    const answer = await api.fetchApi("/dreambooth_dpo/rounds/stop", { method: "POST", headers, body })
    return answer.ok
}

const url = (path, parts) => api.apiURL(`/dreambooth_dpo/${path}?${new URLSearchParams(parts)}`)

const views = new Views(
    "rounds",
    (kind) => kind === "DBDPO_Rounds",
    HEIGHTS,
    (node) => {
        const panel = new Panel({
            picture: (parts) => url("preview", parts),
            stop,
            report: () => window.open(url("report", { run: panel.run || runName(node) }), "_blank", "noopener"),
        })
        return {
            root: panel.root,
            refresh: () => panel.show(stateOf(workflowId(), (id) => nodeOf(id) === node), kept(node)),
            tick: () => panel.tick(),
        }
    },
    { above: ["curve"] },
)

function over(how) {
    finish(how)
    views.refreshAll()
}

app.registerExtension({
    ...views.hooks,
    setup() {
        api.addEventListener("execution_start", () => {
            start()
            views.refreshAll()
        })
        api.addEventListener("execution_success", () => over("done"))
        api.addEventListener("execution_interrupted", () => over("interrupted"))
        api.addEventListener("execution_error", () => over("failed"))
        api.addEventListener("dreambooth_dpo.rounds", ({ detail }) => {
            take(detail, performance.now())
            if (detail.workflow === workflowId()) views.refreshAll()
        })
        setInterval(() => views.views.forEach((view) => view.tick()), TICK)
    },
})
