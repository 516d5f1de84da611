// A text to read, scroll, select and copy. Its content is always plain text, never markup.

import { make } from "../inspect/dom.js"
import { addStyle } from "../shared/style.js"

// The text is positioned absolutely, so that a long text does not make an HTML node taller.
const CSS = `
.dbdpo-said { position: relative; box-sizing: border-box; width: 100%; height: 100%; min-height: 0;
  border-radius: 6px; overflow: hidden;
  color: var(--fg-color, #222); background: var(--comfy-menu-bg, #fff); }
.dbdpo-said-words { position: absolute; inset: 0; box-sizing: border-box; padding: 4px 8px; overflow: auto;
  white-space: pre-wrap; overflow-wrap: anywhere;
  font: 14px/1.3 system-ui, sans-serif; text-align: left; user-select: text; cursor: text; outline: none; }
.dbdpo-said-verdict::first-line { font-size: 17px; font-weight: 700; }
.dbdpo-said-words:focus-visible { box-shadow: inset 0 0 0 2px #2b8fd6; border-radius: 6px; }
`

export class Note {
    /** verdict: whether the first line is one, in large type. */
    constructor(verdict = false) {
        addStyle("dbdpo-said-style", CSS)
        // With HTML nodes, data-capture-wheel makes the wheel scroll the text instead of zooming.
        this.words = make("div", {
            class: verdict ? "dbdpo-said-words dbdpo-said-verdict" : "dbdpo-said-words",
            tabindex: "0",
            role: "note",
            "aria-label": "text output of the node",
            "data-capture-wheel": "true",
        })
        this.root = make("div", { class: "dbdpo-said" }, this.words)
        // Keep these events from the canvas, which would move or copy the node.
        for (const type of ["pointerdown", "keydown", "copy", "dblclick"])
            this.words.addEventListener(type, (event) => event.stopPropagation())
    }

    show(text) {
        if (this.words.textContent !== text) this.words.textContent = text
    }
}
