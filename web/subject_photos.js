// Subject Photos: photos are dropped onto the node, or picked by its button. They are uploaded into ComfyUI's input
// folder, and their names written into the node's text widget `files`, which is saved and undone with the workflow.

import { app } from "../../scripts/app.js"
import { dropped, holdsFiles, picked, upload } from "./photos/files.js"
import { Strip } from "./photos/strip.js"
import { Views, captureChange } from "./shared/nodes.js"

const HEIGHTS = [124, 150]
const FILES_BELOW = "(files below)"
/** The picture that ComfyUI comes with: it stands in the examples where the user's photos belong. */
const EXAMPLE = "example.png"
const MOST_NAMES = 4

const widgetOf = (node, name) => node.widgets?.find((widget) => widget.name === name)

const linesOf = (text) => [...new Set(String(text ?? "").split("\n").map((line) => line.trim()).filter(Boolean))]

function set(widget, value) {
    if (!widget || widget.value === value) return
    widget.value = value
    widget.callback?.(value)
}

/** The names added to the list, each once; the placeholder of the examples gives way. */
function add(node, names) {
    const files = widgetOf(node, "files")
    const before = linesOf(files.value).filter((name, _, all) => !(all.length === 1 && name === EXAMPLE))
    set(widgetOf(node, "folder"), FILES_BELOW)
    set(files, linesOf([...before, ...names].join("\n")).join("\n"))
    node.setDirtyCanvas?.(true, true)
    captureChange()
}

function few(names) {
    const more = names.length - MOST_NAMES
    return names.slice(0, MOST_NAMES).join(", ") + (more > 0 ? ` and ${more} more` : "")
}

/** Uploads what was dropped or picked, and says what was not taken. */
async function take(node, strip, found) {
    const { files, left } = await found
    const said = left.length ? [`not taken, no pictures: ${few(left)}`] : []
    if (files.length) {
        const tell = (done) => strip.say(`uploading ${done} of ${files.length}`)
        tell(0)
        const { names, failed } = await upload(files, tell)
        if (names.length) add(node, names)
        if (failed.length) said.push(`not uploaded: ${few(failed)}`)
    }
    strip.say(said.join("; "))
}

function view(node) {
    let last = Promise.resolve() // one after the other, so that no upload meets another
    const queue = (found) => {
        last = last.then(() => take(node, strip, found)).catch((error) => strip.say(`not uploaded: ${error.message}`))
        return last
    }
    const strip = new Strip((files) => void queue(picked(files)))
    const refresh = () => {
        const folder = widgetOf(node, "folder")?.value
        strip.show(linesOf(widgetOf(node, "files")?.value), folder && folder !== FILES_BELOW ? folder : null)
        for (const widget of node.widgets ?? []) if (widget.element) catchDrops(widget.element, strip.root, queue)
    }
    node.onDragOver = (event) => holdsFiles(event.dataTransfer)
    node.onDragDrop = (event) => {
        if (!holdsFiles(event.dataTransfer)) return false
        void queue(dropped(event.dataTransfer))
        return true
    }
    for (const name of ["folder", "files"]) {
        const widget = widgetOf(node, name)
        const own = widget.callback
        widget.callback = function (...given) {
            const result = own?.apply(this, given)
            requestAnimationFrame(refresh)
            return result
        }
    }
    return { root: strip.root, refresh }
}

/** Elements over the canvas (text fields, views) get the drop in the canvas's place. */
function catchDrops(element, root, queue) {
    if (element.dbdpoCatchesDrops) return
    element.dbdpoCatchesDrops = true
    const over = (on) => root.classList.toggle("dbdpo-over", on)
    element.addEventListener("dragover", (event) => {
        if (!holdsFiles(event.dataTransfer)) return
        event.preventDefault()
        event.stopPropagation()
        over(true)
    })
    element.addEventListener("dragleave", () => over(false))
    element.addEventListener("drop", (event) => {
        if (!holdsFiles(event.dataTransfer)) return
        event.preventDefault()
        event.stopPropagation()
        // HTML nodes mark themselves while a drag is over them, and do not see this drop.
        element.dispatchEvent(new DragEvent("dragleave", { bubbles: true }))
        void queue(dropped(event.dataTransfer))
    })
}

app.registerExtension(new Views("photos", (kind) => kind === "DBDPO_SubjectPhotos", HEIGHTS, view).hooks)
