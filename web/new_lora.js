// After Save DPO LoRA has written a file, the page's lists are refreshed, as key R does: Load LoRA then offers it.

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { nodeOf } from "./shared/nodes.js"

/** What the nodes said last: a cached result is sent again, and names no new file. */
const said = new Set()

async function refresh() {
    // reloadNodeDefs is refreshComboInNodes without its two messages; front end 1.27 has the latter alone.
    await (app.reloadNodeDefs ?? app.refreshComboInNodes)?.call(app)
}

app.registerExtension({
    name: "dreambooth_dpo.new_lora",
    setup() {
        api.addEventListener("executed", ({ detail: { node, display_node: shown, output } }) => {
            const text = output?.text?.[0]
            if (!text || said.has(text) || nodeOf(shown ?? node)?.comfyClass !== "DBDPO_SaveLora") return
            said.add(text)
            refresh().catch(() => {}) // the text says that key R does it too
        })
    },
})
