// The panel's element: line of progress, bar, buttons, estimate, plane, pictures and the decision.

import { make, draw, picture } from "../inspect/dom.js"
import { drawPlane } from "./plane.js"
import { dress } from "./styles.js"
import { headline, stopButton, times } from "./words.js"

const NAME = "progress of the rounds"

/** Set a text or property only where it differs: messages come four times a second. */
function put(element, values) {
    for (const [name, value] of Object.entries(values)) if (element[name] !== value) element[name] = value
}

export class Panel {
    /** act: picture(parts) gives an image's address; stop(state) asks the server; report() opens the report. */
    constructor(act) {
        dress()
        Object.assign(this, { act, state: null, kept: null, asked: null })
        this.line = make("div", { class: "dbdpo-rounds-line" })
        this.time = make("div", { class: "dbdpo-rounds-time" })
        this.fill = make("div", { class: "dbdpo-rounds-fill" })
        this.bar = make("div", { class: "dbdpo-rounds-bar", role: "progressbar", "aria-label": NAME }, this.fill)
        this.stop = make("button", { type: "button", class: "dbdpo-rounds-stop", click: () => this.pressStop() })
        this.report = make("button", { type: "button", text: "Open the report", click: () => act.report() })
        this.estimate = make("div", { class: "dbdpo-rounds-estimate" })
        this.said = make("div", { class: "dbdpo-rounds-said" })
        this.svg = draw("svg", { class: "dbdpo-rounds-plane", role: "img" })
        this.pictures = make("div", { class: "dbdpo-rounds-pictures" })
        this.seen = make("div", { class: "dbdpo-rounds-seen" }, this.svg, this.pictures)
        const buttons = make("div", { class: "dbdpo-rounds-buttons" }, this.stop, this.report)
        const parts = [this.line, this.bar, this.time, this.estimate, buttons, this.said, this.seen]
        this.root = make("div", { class: "dbdpo-rounds" }, ...parts)
        new ResizeObserver(() => this.redraw()).observe(this.svg)
        // Keep these events from the canvas, which would move the node or the view.
        for (const button of [this.stop, this.report])
            for (const type of ["pointerdown", "keydown", "dblclick"])
                button.addEventListener(type, (event) => event.stopPropagation())
        this.show(null, null)
    }

    /** The name of the run that is shown, or null. */
    get run() {
        return this.state?.run ?? this.kept?.run ?? null
    }

    /** What is measured: of the running run, else of the last one. */
    get found() {
        return this.state?.points ? this.state : this.state && !this.state.over ? null : this.kept
    }

    /** state: the last message with its `at` and `over` (store.js), or null. kept: the output of Keep Best, or null. */
    show(state, kept) {
        Object.assign(this, { state, kept })
        const running = state && !state.over
        this.root.dataset.state = running ? "running" : (state?.over ?? (kept ? "done" : "idle"))
        put(this.line, { textContent: headline(state, kept) })
        this.tick()
        const share = state?.over === "done" || (!state && kept) ? 1 : (state?.share ?? 0)
        this.fill.style.width = `${(100 * share).toFixed(1)}%`
        this.bar.hidden = !state && !kept
        this.bar.setAttribute("aria-valuenow", Math.round(100 * share))
        const [text, title, enabled] = stopButton(state)
        put(this.stop, { textContent: text, title, disabled: !enabled, hidden: !running })
        this.report.hidden = !this.found?.points
        put(this.estimate, { textContent: running && !this.found ? (state.estimate ?? []).join(" ") : "" })
        put(this.said, { textContent: this.found?.said ?? "" })
        this.seen.hidden = !this.found?.points
        this.svg.setAttribute("aria-label", `mean scores of ${this.found?.points?.length ?? 0} models`)
        this.redraw()
        this.showPictures(this.found?.pictures)
    }

    /** Once a second while it runs: the clock goes on between two messages. */
    tick() {
        const { state } = this
        const more = state && !state.over ? (performance.now() - state.at) / 1000 : 0
        put(this.time, { textContent: times(state, more) })
    }

    redraw() {
        if (this.found?.points) drawPlane(this.svg, this.found.points, this.found.kept)
    }

    async pressStop() {
        const { state } = this
        this.stop.disabled = true
        if (!(await this.act.stop(state).catch(() => false))) {
            this.stop.title = "The server knows no such run any more."
            this.stop.disabled = false
        }
    }

    showPictures(given) {
        const mark = JSON.stringify(given ?? null)
        if (mark === this.shown) return
        this.shown = mark
        this.pictures.replaceChildren()
        for (const side of given?.sides ?? []) {
            const label = side.round ? `after round ${side.round}` : "start"
            const images = side.names.map((name, i) =>
                picture({
                    src: this.act.picture({ run: this.run, set: side.set, name }),
                    alt: `${label}: ${given.prompts[i]}`,
                    title: given.prompts[i],
                }),
            )
            this.pictures.append(
                make("div", { class: "dbdpo-rounds-side" }, make("span", { text: label })),
                make("div", { class: "dbdpo-rounds-row" }, ...images),
            )
        }
    }
}
