// Rating one pair after another on the full screen: two large pictures, which one is better? Answers are the same
// decisions as the panel's. Sides are shuffled and scores are hidden, so that the rule's choice does not lead.

import { make, picture } from "./dom.js"

const HINT = "← left is better · → right is better · Space or ↓ neither · Z undo · N skip · Esc close"

/** Whether the pair's winner is shown on the left: half of the pairs, always the same (FNV-1a of id and candidates). */
function winnerLeft(text) {
    let hash = 0x811c9dc5
    for (const character of text) hash = Math.imul(hash ^ character.codePointAt(0), 0x01000193)
    return ((hash ^ (hash >>> 15)) & 1) === 0
}

export class Rating {
    /**
     * @param state the Inspection
     * @param edit called with a change of the state: it stores and draws the result
     * @param preview, large the addresses of a picture's preview and of the picture itself, by the preview's name
     */
    constructor({ state, edit, preview, large }) {
        Object.assign(this, { state, edit, preview, large })
        this.made = 0
        this.skipped = new Set()
        this.parts()
        this.keys = {
            ArrowLeft: () => this.prefer(0),
            ArrowRight: () => this.prefer(1),
            ArrowDown: () => this.answer("reject"),
            " ": () => this.answer("reject"),
            z: () => this.undo(),
            n: () => this.skip(),
        }
    }

    parts() {
        const button = (text, act) => make("button", { type: "button", text, click: () => (act(), this.focus()) })
        this.where = make("div", { class: "dbdpo-rate-where", "aria-live": "polite" })
        this.prompt = make("div", { class: "dbdpo-rate-prompt" })
        this.photos = make("div", { class: "dbdpo-rate-photos" })
        this.images = ["left", "right"].map((side, place) =>
            picture({ alt: `${side} picture`, click: () => (this.prefer(place), this.focus()) }),
        )
        this.done = make("div", { class: "dbdpo-rate-done", hidden: "" })
        this.answers = [
            button("← Left is better", () => this.prefer(0)),
            button("Neither (Space)", () => this.answer("reject")),
            button("Right is better →", () => this.prefer(1)),
        ]
        this.back = button("Undo (Z)", () => this.undo())
        this.later = button("Skip (N)", () => this.skip())
        // ComfyUI leaves keys alone while an input has the focus, its own undo included.
        this.holder = make("input", { class: "dbdpo-rate-keys", readonly: "", "aria-label": "Rating: " + HINT })
        this.root = make(
            "dialog",
            {
                class: "dbdpo-rate",
                "aria-label": "Rate pairs",
                keydown: (event) => this.key(event),
                keyup: (event) => event.stopPropagation(),
                close: () => this.closed(),
            },
            make("div", { class: "dbdpo-rate-head" }, this.where, this.photos, button("Close (Esc)", () => this.close())),
            this.prompt,
            make("div", { class: "dbdpo-rate-pictures" }, ...this.images, this.done),
            make("div", { class: "dbdpo-rate-buttons" }, this.back, ...this.answers, this.later),
            make("div", { class: "dbdpo-rate-hint", text: HINT }),
            this.holder,
        )
    }

    get open() {
        return this.root.open
    }

    /** Show the dialog at the first pair without a decision. */
    show() {
        if (this.open || !this.state.shownPairs.length) return
        this.made = 0
        this.skipped.clear()
        const { references } = this.state.payload
        this.photos.replaceChildren(
            ...references.slice(0, 6).map((name, i) => picture({ src: this.preview(name), alt: `reference photo ${i + 1}` })),
        )
        document.body.append(this.root)
        this.root.showModal()
        this.go(this.next())
        this.focus()
    }

    close() {
        this.root.close()
    }

    closed() {
        this.root.remove()
        this.whenClosed?.()
    }

    focus() {
        if (this.open) this.holder.focus()
    }

    // --- which pair ---

    /** The first pair without a decision, from the current one on; null where there is none. */
    next() {
        const pairs = this.state.shownPairs
        const from = Math.max(0, pairs.findIndex((pair) => pair.id === this.state.selected))
        const order = [...pairs.slice(from), ...pairs.slice(0, from)]
        return order.find((pair) => !this.state.decisionOn(pair.id) && !this.skipped.has(pair.id)) ?? null
    }

    go(pair) {
        this.finished = !pair
        if (pair) this.state.select("pairs", pair.id)
        this.render()
    }

    /** Positions of the candidates of a pair, left and right. */
    sides(pair) {
        const both = [pair.winner, pair.loser]
        return winnerLeft(`${this.state.payload.fingerprint} ${pair.id}`) ? both : both.reverse()
    }

    // --- answers ---

    prefer(place) {
        const { pair } = this.state
        if (pair && !this.finished) this.answer(this.sides(pair)[place] === pair.winner ? "keep" : "swap")
    }

    answer(decision) {
        if (this.finished || !this.state.pair) return
        if (this.state.decisionOn(this.state.pair.id) !== decision) {
            this.edit(() => this.state.choose(decision))
            this.made++
        }
        this.go(this.next())
    }

    skip() {
        if (this.finished || !this.state.pair) return
        this.skipped.add(this.state.pair.id)
        this.go(this.next())
    }

    /** Take back the last answer given here; decisions from before the dialog stay. */
    undo() {
        if (!this.made) return
        this.made--
        this.edit(() => this.state.undo())
        this.go(this.state.pair)
    }

    key(event) {
        event.stopPropagation() // letters and Delete are ComfyUI's shortcuts
        const onButton = event.target.tagName === "BUTTON" && (event.key === " " || event.key === "Enter")
        if (onButton || event.key === "Tab" || event.key === "Escape" || event.altKey) return
        const name = event.key.length === 1 ? event.key.toLowerCase() : event.key
        if ((event.ctrlKey || event.metaKey) && name !== "z") return
        event.preventDefault()
        if (!event.repeat) this.keys[name]?.()
    }

    // --- drawing ---

    render() {
        if (!this.open) return
        const { state } = this
        const { pair, payload } = state
        const pairs = state.shownPairs
        const rated = pairs.filter((one) => state.decisionOn(one.id)).length
        const { keep, swap, reject } = state.counts
        const lacking = Math.max(0, (payload.enough ?? 0) - keep - swap - reject)
        this.where.textContent =
            `${rated} of ${pairs.length} pairs rated` +
            (lacking ? `; ${lacking} more until the scorers' agreement with you is measured` : "")
        this.done.hidden = !this.finished
        this.done.textContent = this.skipped.size
            ? `All pairs are rated but ${this.skipped.size} skipped. Close, and press Run to apply your decisions.`
            : "All pairs are rated. Close, and press Run to apply your decisions."
        this.prompt.textContent = this.finished || !pair ? "" : payload.prompts[payload.prompt[pair.winner]]
        const shown = this.finished || !pair ? [] : this.sides(pair)
        this.images.forEach((image, place) => {
            image.hidden = shown[place] === undefined
            if (shown[place] === undefined) return
            const source = this.large(payload.files[shown[place]])
            if (image.getAttribute("src") !== source) image.src = source
        })
        this.back.disabled = !this.made
        for (const button of [...this.answers, this.later]) button.disabled = this.finished
        if (!this.finished) this.fetchAhead(pairs)
    }

    /** Loads the pictures of the next pair, so that it shows at once. */
    fetchAhead(pairs) {
        const at = pairs.findIndex((pair) => pair.id === this.state.selected)
        const after = pairs.slice(at + 1).find((pair) => !this.state.decisionOn(pair.id))
        this.ahead = (after ? [after.winner, after.loser] : []).map((position) => {
            const image = new Image()
            image.src = this.large(this.state.payload.files[position])
            return image
        })
    }
}
