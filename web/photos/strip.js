// The strip on Subject Photos: a button, how many files there are, small pictures, and what was not taken.

import { api } from "../../../scripts/api.js"
import { make } from "../inspect/dom.js"
import { addStyle } from "../shared/style.js"
import { viewOf } from "./files.js"

const MOST = 12
const ACCEPT = "image/*,.heic,.heif,.hif,.avif,.tif,.tiff"
const CSS = `
.dbdpo-photos { box-sizing: border-box; width: 100%; height: 100%; min-height: 0; padding: 6px 8px; border-radius: 6px;
  overflow: hidden; display: flex; flex-direction: column; gap: 6px; color: var(--fg-color, #222);
  background: var(--comfy-menu-bg, #fff); font: 14px/1.3 system-ui, sans-serif; border: 2px dashed transparent; }
.dbdpo-photos.dbdpo-over { border-color: #2b8fd6; }
.dbdpo-photos-bar { display: flex; gap: 10px; align-items: center; flex: none; }
.dbdpo-photos button { font: inherit; flex: none; color: var(--input-text, #222); cursor: pointer;
  background: var(--comfy-input-bg, #eee); border: 1px solid var(--border-color, #999); border-radius: 6px;
  padding: 3px 12px; }
.dbdpo-photos button:focus-visible { outline: 3px solid #2b8fd6; outline-offset: 1px; }
.dbdpo-photos-count { min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.dbdpo-photos-row { display: flex; flex-wrap: wrap; align-content: flex-start; gap: 4px; flex: 1 1 44px;
  min-height: 44px; overflow: hidden; }
.dbdpo-photos-row img { width: 44px; height: 44px; object-fit: cover; border-radius: 4px; flex: none; }
.dbdpo-photos-note { flex: none; max-height: 40px; overflow: auto; overflow-wrap: anywhere; opacity: 0.9; }
.dbdpo-photos-note:empty { display: none; }
`

export class Strip {
    /** take(files): called with the files of the dialog. */
    constructor(take) {
        addStyle("dbdpo-photos-style", CSS)
        this.input = make("input", { type: "file", multiple: "", accept: ACCEPT, hidden: "" })
        this.input.addEventListener("change", () => {
            take([...this.input.files])
            this.input.value = "" // so that the same files can be picked again
        })
        this.count = make("span", { class: "dbdpo-photos-count", role: "status" })
        this.row = make("div", { class: "dbdpo-photos-row" })
        this.note = make("div", { class: "dbdpo-photos-note", "data-capture-wheel": "true" })
        const button = make("button", { type: "button", text: "Add photos…", click: () => this.input.click() })
        const bar = make("div", { class: "dbdpo-photos-bar" }, button, this.count, this.input)
        this.root = make("div", { class: "dbdpo-photos" }, bar, this.row, this.note)
        button.addEventListener("pointerdown", (event) => event.stopPropagation())
        this.shown = null
    }

    /** names: the files of the list; folder: the chosen folder, or null. */
    show(names, folder) {
        const key = JSON.stringify([names, folder])
        if (key === this.shown) return
        this.shown = key
        const many = names.length === 1 ? "1 file" : `${names.length} files`
        this.count.textContent = folder ? `the folder ${folder}` : names.length ? many : "or drop photos here"
        this.row.replaceChildren(...(folder ? [] : names.slice(0, MOST).map(thumbnail)))
    }

    say(text) {
        this.note.textContent = text
    }
}

/** A small picture; none where the browser cannot show the file, as with HEIC. */
function thumbnail(name) {
    const parts = name.replaceAll("\\", "/").split("/")
    const file = parts.pop()
    const image = make("img", { src: api.apiURL(viewOf(parts.join("/"), file)), title: name, alt: name })
    Object.assign(image, { loading: "lazy", decoding: "async", draggable: false })
    image.addEventListener("error", () => image.remove())
    return image
}
