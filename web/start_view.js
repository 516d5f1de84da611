// Opens this pack's examples where they begin, at a readable size: the newest front end fits a whole template on the
// screen, which makes a large graph too small to read.

import { app } from "../../scripts/app.js"

/** Where an example begins, in its `extra`; removed once used, so that a saved copy opens as its user left it. */
const START = "dbdpo_start"

app.registerExtension({
    name: "dreambooth_dpo.start_view",
    afterConfigureGraph() {
        const extra = (app.rootGraph ?? app.graph)?.extra
        const start = extra?.[START]
        if (!start) return
        delete extra[START]
        const view = app.canvas.ds
        view.scale = start.scale
        view.offset[0] = start.offset[0]
        view.offset[1] = start.offset[1]
        app.canvas.setDirty(true, true)
    },
})
