// A node's last live preview stays on it after a run. With HTML nodes, the front end also shows the node's output
// image, so the same image would appear twice: hide the second one.

import { app } from "../../scripts/app.js"
import { outputKey } from "./shared/nodes.js"

app.registerExtension({
    name: "dreambooth_dpo.pictures",
    nodeCreated(node) {
        const own = Object.getOwnPropertyDescriptor(node, "hideOutputImages")
        if (!node.comfyClass?.startsWith("DBDPO_") || own?.get) return // the slider's node has its own rule
        const previewed = () => Boolean(app.nodePreviewImages?.[outputKey(node)]?.length)
        Object.defineProperty(node, "hideOutputImages", { configurable: true, get: previewed, set() {} })
    },
})
