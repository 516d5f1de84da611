// A node's last live preview stays on it after a run. Where nodes are HTML the front end shows its picture beside it: the same one twice.

import { app } from "../../scripts/app.js"
import { outputKey } from "./shared/nodes.js"

app.registerExtension({
    name: "dreambooth_dpo.pictures",
    nodeCreated(node) {
        const own = Object.getOwnPropertyDescriptor(node, "hideOutputImages")
        if (!node.comfyClass?.startsWith("DBDPO_") || own?.get) return // the slider's node has a rule of its own
        const previewed = () => Boolean(app.nodePreviewImages?.[outputKey(node)]?.length)
        Object.defineProperty(node, "hideOutputImages", { configurable: true, get: previewed, set() {} })
    },
})
