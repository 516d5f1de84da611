// The selected pair in large: winner and loser side by side above the reference photos; or a single candidate.

import { make, picture } from "./dom.js"
import { scoreText, seedText } from "./tip.js"

const THUMBS = { up: "▲ good", down: "▼ bad" }

class Figure {
    constructor(keys, onThumb) {
        this.role = make("div", { class: "dbdpo-role" })
        this.image = picture({ alt: "" })
        this.numbers = make("div", { class: "dbdpo-numbers" })
        this.buttons = Object.fromEntries(
            Object.keys(THUMBS).map((way, i) => [
                way,
                make("button", {
                    type: "button",
                    text: `${THUMBS[way]} (${keys[i]})`,
                    title: "Rate this candidate alone (used by the objective kto)",
                    click: () => onThumb(this.position, way),
                }),
            ]),
        )
        this.root = make(
            "figure",
            {},
            this.role,
            this.image,
            this.numbers,
            make("div", { class: "dbdpo-thumbs-row" }, ...Object.values(this.buttons)),
        )
    }

    show(state, position, role, url) {
        const { payload } = state
        this.position = position
        this.root.dataset.role = role
        this.role.textContent = role
        const source = url(payload.files[position])
        if (this.image.getAttribute("src") !== source) this.image.src = source
        this.image.alt = `${role}: candidate ${position}`
        const scores = `F ${scoreText(payload.fidelity[position])}  A ${scoreText(payload.alignment[position])}`
        this.numbers.textContent = `${scores}\n${seedText(payload, position)}`
        const thumb = state.thumbOn(position)
        for (const [way, button] of Object.entries(this.buttons))
            button.setAttribute("aria-pressed", String(thumb === way))
    }
}

export class Compare {
    /** @param onThumb called with (position, "up" or "down"); @param url of a preview by its name */
    constructor(state, onThumb, url) {
        this.state = state
        this.url = url
        this.prompt = make("div", { class: "dbdpo-prompt" })
        this.where = make("div", { class: "dbdpo-where", "aria-live": "polite" })
        this.figures = [new Figure(["1", "2"], onThumb), new Figure(["3", "4"], onThumb)]
        this.photos = make("div", { class: "dbdpo-photos" })
        this.root = make(
            "div",
            { class: "dbdpo-compare" },
            this.where,
            this.prompt,
            make("div", { class: "dbdpo-figures" }, ...this.figures.map((figure) => figure.root)),
            this.photos,
        )
    }

    /** New candidates: their reference photos. */
    place() {
        const { references } = this.state.payload
        this.photos.replaceChildren(
            make("span", { text: "Photos" }),
            ...references.map((name, i) => picture({ src: this.url(name), alt: `reference photo ${i + 1}` })),
        )
    }

    /** Positions of the candidates shown, winner first. */
    get shown() {
        const { state } = this
        if (state.selected === null) return []
        const { pair } = state
        if (!pair) return [state.selected]
        return state.decisionOn(pair.id) === "swap" ? [pair.loser, pair.winner] : [pair.winner, pair.loser]
    }

    render() {
        const { state, shown } = this
        const { pair, payload } = state
        const rejected = pair && state.decisionOn(pair.id) === "reject"
        const roles = pair ? (rejected ? ["rejected", "rejected"] : ["winner", "loser"]) : ["candidate"]
        this.figures.forEach((figure, i) => {
            figure.root.hidden = shown[i] === undefined
            if (shown[i] !== undefined) figure.show(state, shown[i], roles[i], this.url)
        })
        this.prompt.textContent = shown.length ? payload.prompts[payload.prompt[shown[0]]] : ""
        this.where.textContent = this.words(pair)
    }

    words(pair) {
        const { state } = this
        const list = state.list
        const at = `${list.indexOf(state.selected) + 1} of ${list.length}`
        if (state.selected === null)
            return state.mode === "pairs" ? "No pair has this prompt." : "No candidate has this prompt."
        if (!pair) return `Candidate ${at}`
        const decision = { keep: "kept", swap: "swapped", reject: "rejected" }[state.decisionOn(pair.id)]
        const numbers = `${Math.round(pair.angle)}°, ${pair.length.toFixed(2)} SD`
        const near = state.payload.rule === "random" ? "" : `; ${pair.near.toFixed(2)} SD from the boundary`
        return `Pair ${at}${decision ? ` (${decision})` : ""}: ${numbers}${near}`
    }
}
