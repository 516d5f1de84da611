// The inspector's panel: the cloud beside the selected pair, the controls, and the keys. It does not depend on ComfyUI:
// the caller passes `commit`, which is called with the text of the edits whenever a decision is made or undone.

import { Cloud } from "./cloud.js"
import { Compare } from "./compare.js"
import { make } from "./dom.js"
import { Rating } from "./rate.js"
import { Inspection } from "./state.js"
import { dress } from "./styles.js"
import { counted, many, noted } from "./words.js"

const WAITING = "Press Run: the pairs will be shown here, to keep, swap or reject."
const DECISIONS = { keep: "Keep (K)", swap: "Swap (S)", reject: "Reject (R)" }
const HINT =
    "Keys: ← → previous and next, Home End, K keep, S swap, R reject, U undo, " +
    "1 2 3 4 thumbs, M pairs or candidates, F prompts, B rate one by one"

export class Panel {
    constructor({ commit, url }) {
        dress()
        this.commit = commit
        this.state = new Inspection()
        const at = (name, large) => url({ run: this.state.payload.run, set: this.state.payload.set, name }, large)
        const preview = (name) => at(name, false)
        this.rating = new Rating({
            state: this.state,
            edit: (change) => this.edit(change),
            preview,
            large: (name) => at(name, true),
        })
        this.rating.whenClosed = () => {
            this.render()
            this.root.focus({ preventScroll: true })
        }
        this.cloud = new Cloud(this.state, (mode, what) => this.act(() => this.state.select(mode, what)), preview)
        this.compare = new Compare(
            this.state,
            (position, way) => this.edit(() => this.state.thumb(position, way)),
            preview,
        )
        this.preview = preview
        this.parts()
        this.keys = this.bound()
        this.root = make(
            "div",
            {
                class: "dbdpo-inspect",
                tabindex: "0",
                role: "group",
                "aria-label": "Inspect pairs",
                keydown: (event) => this.key(event),
            },
            this.empty,
            this.body,
        )
        // With HTML nodes, a press would start dragging the node; the middle button still moves the canvas.
        this.root.addEventListener("pointerdown", (event) => event.button !== 1 && event.stopPropagation())
        this.cloud.root.addEventListener("pointerenter", () => this.fetchAhead())
        this.render()
    }

    parts() {
        const button = (text, act, more = {}) => make("button", { type: "button", text, click: act, ...more })
        this.filter = make("select", {
            "aria-label": "Prompt",
            change: () => this.act(() => this.state.show(Number(this.filter.value))),
        })
        this.mode = make(
            "select",
            { "aria-label": "Show", change: () => this.act(() => this.state.setMode(this.mode.value)) },
            make("option", { value: "pairs", text: "pairs" }),
            make("option", { value: "candidates", text: "candidates" }),
        )
        this.count = make("div", { class: "dbdpo-count", "aria-live": "polite" })
        this.rate = button("Rate one by one (B)", () => this.rating.show())
        this.undo = button("Undo (U)", () => this.edit(() => this.state.undo()))
        this.restore = button("", () => this.edit(() => this.state.restore()), { class: "dbdpo-restore" })
        this.note = make("div", { class: "dbdpo-note", "aria-live": "polite" })
        this.agreed = make("summary")
        this.agreement = make("details", { class: "dbdpo-agreement" }, this.agreed)
        this.decisions = Object.fromEntries(
            Object.entries(DECISIONS).map(([what, text]) => [
                what,
                button(text, () => this.edit(() => this.state.decide(what)), { class: `dbdpo-do-${what}` }),
            ]),
        )
        this.previous = button("← Previous", () => this.act(() => this.state.step(-1)))
        this.next = button("Next →", () => this.act(() => this.state.step(1)))
        this.empty = make("div", { class: "dbdpo-empty", text: WAITING })
        const legend = [
            ["winner", "●", "winner"],
            ["loser", "▼", "loser"],
            ["both", "◆", "both"],
            ["none", "•", "in no pair"],
            ["window", "◢", "window"],
            ["way", "➔", "reward rises"],
            ["level", "╌", "equal reward"],
        ]
        this.body = make(
            "div",
            { class: "dbdpo-body" },
            make("div", { class: "dbdpo-bar" }, this.filter, this.mode, this.count, this.restore, this.undo),
            make(
                "div",
                { class: "dbdpo-main" },
                make(
                    "div",
                    { class: "dbdpo-left" },
                    this.cloud.root,
                    make(
                        "div",
                        { class: "dbdpo-legend" },
                        ...legend.map(([name, sign, text]) =>
                            make("span", {}, make("i", { class: `dbdpo-sign-${name}`, text: sign }), ` ${text}`),
                        ),
                    ),
                ),
                this.compare.root,
            ),
            make(
                "div",
                { class: "dbdpo-bar dbdpo-actions" },
                this.previous,
                ...Object.values(this.decisions),
                this.next,
                this.rate,
            ),
            this.note,
            this.agreement,
            make("div", { class: "dbdpo-hint", text: HINT }),
        )
    }

    // --- input from the node ---

    /** The output of the node's run, and the text of the edits in the graph. */
    show(payload, text) {
        const before = this.state.payload
        this.state.setText(text)
        if (payload !== before) {
            this.state.take(payload)
            this.ahead = null // what is still being preloaded belongs to the earlier payload
        }
        if (payload && payload !== before) {
            const options = payload.prompts.map((prompt, i) => make("option", { value: i, text: prompt }))
            this.filter.replaceChildren(
                make("option", { value: -1, text: `all ${many(payload.prompts.length, "prompt")}` }),
                ...options,
            )
            this.cloud.place()
            this.compare.place()
            this.nameRule(payload)
            this.sayAgreement(payload.agreement ?? [])
        }
        this.render()
    }

    /** What the last run said of the scorers' agreement with the decisions: a first line, and more to unfold. */
    sayAgreement([first, ...more]) {
        this.agreement.hidden = !first
        this.agreed.textContent = first ?? ""
        this.agreement.replaceChildren(this.agreed, ...more.map((text) => make("div", { text })))
    }

    /** Take over selection and undo history from an earlier panel of the same node. */
    inherit(other) {
        const { filter, mode, selected, past, of } = other.state
        Object.assign(this.state, { filter, mode, selected, past, of })
    }

    /** The legend shows what the pair rule draws: a window, a reward direction, or neither. */
    nameRule({ window, way }) {
        const wayless = way === null || way === undefined
        for (const [name, gone] of [
            ["window", !window],
            ["way", wayless],
            ["level", wayless],
        ])
            this.body.querySelector(`.dbdpo-sign-${name}`).parentElement.hidden = gone
        this.body.querySelector(".dbdpo-sign-way").nextSibling.textContent = ` reward rises (${Math.round(way ?? 0)}°)`
    }

    // --- user actions ---

    act(change) {
        change()
        this.render()
    }

    edit(change) {
        if (change()) this.commit(this.state.text)
        this.render()
    }

    key(event) {
        if (event.ctrlKey || event.metaKey || event.altKey || event.key === "Tab") return
        // Keep keys from the canvas, where single letters and Delete are ComfyUI's shortcuts.
        event.stopPropagation()
        if (event.target.tagName === "SELECT") {
            if (event.key === "Escape") this.root.focus()
            return
        }
        const run = this.state.payload && this.keys[event.key.length === 1 ? event.key.toLowerCase() : event.key]
        if (!run) return
        event.preventDefault()
        run()
    }

    /** The action of each key. */
    bound() {
        const { state } = this
        const go = (change) => () => this.act(change)
        const decide = (what) => () => this.edit(() => state.decide(what))
        const thumb = (place, way) => () => {
            const position = this.compare.shown[place]
            if (position !== undefined) this.edit(() => state.thumb(position, way))
        }
        const [next, previous] = [go(() => state.step(1)), go(() => state.step(-1))]
        return {
            ArrowRight: next,
            ArrowDown: next,
            ArrowLeft: previous,
            ArrowUp: previous,
            Home: go(() => state.end(false)),
            End: go(() => state.end(true)),
            k: decide("keep"),
            s: decide("swap"),
            r: decide("reject"),
            u: () => this.edit(() => state.undo()),
            1: thumb(0, "up"),
            2: thumb(0, "down"),
            3: thumb(1, "up"),
            4: thumb(1, "down"),
            m: go(() => state.setMode(state.mode === "pairs" ? "candidates" : "pairs")),
            f: () => this.filter.focus(),
            b: () => this.rating.show(),
        }
    }

    /** Preloads thumbnails, a few at a time, once the pointer is on the cloud. */
    fetchAhead() {
        if (this.ahead || !this.state.payload) return
        const files = [...this.state.payload.files]
        const ahead = (this.ahead = { kept: [] })
        const fetchOne = () => {
            const name = files.shift()
            if (!name || this.ahead !== ahead) return
            const image = new Image()
            image.onload = image.onerror = fetchOne
            image.src = this.preview(name)
            ahead.kept.push(image)
        }
        for (let i = 0; i < 4; i++) fetchOne()
    }

    // --- rendering ---

    render() {
        const { state } = this
        const there = Boolean(state.payload)
        this.empty.hidden = there
        this.body.hidden = !there
        if (!there) return
        this.filter.value = String(state.filter)
        this.mode.value = state.mode
        this.cloud.render()
        this.compare.render()
        this.count.textContent = counted(state)
        this.undo.disabled = !state.canUndo
        this.rate.disabled = !state.shownPairs.length
        this.rating.render()
        this.restore.hidden = !state.restorable
        const whose = state.payload.kept_here === false ? " of another node" : ""
        this.restore.textContent = `Restore ${many(state.restorable, "saved decision")}${whose}`
        this.note.textContent = noted(state)
        const decision = state.pair && state.decisionOn(state.pair.id)
        for (const [what, button] of Object.entries(this.decisions)) {
            button.disabled = !state.pair
            button.setAttribute("aria-pressed", String(decision === what))
        }
        this.previous.disabled = state.list[0] === state.selected
        this.next.disabled = state.list.at(-1) === state.selected
    }
}
