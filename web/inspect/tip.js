// The tooltip of the candidate under the pointer: thumbnail, prompt, seed and scores.

import { make, picture } from "./dom.js"

/** A score, or that there is none: some scorers give none to some pictures. */
export function scoreText(score) {
    return score === null ? "none" : score.toFixed(3)
}

/** The seed of a candidate, and whether it was drawn in a round before. */
export function seedText(payload, position) {
    return `seed ${payload.seed[position]}${payload.earlier?.[position] ? ", of a round before" : ""}`
}

const WIDTH = 430
const APART = 18

export class Tip {
    constructor(url) {
        this.url = url
        this.image = picture({ alt: "" })
        this.prompt = make("div", { class: "dbdpo-tip-prompt" })
        this.numbers = make("div")
        this.root = make(
            "div",
            { class: "dbdpo-tip", hidden: "" },
            this.image,
            make("div", {}, this.prompt, this.numbers),
        )
    }

    /** @param spot position of the candidate in a box of the given size, both in pixels; null hides the tooltip */
    show(payload, position, spot, [width, height]) {
        this.root.hidden = spot === null
        if (spot === null) return
        this.image.src = this.url(payload.files[position])
        this.prompt.textContent = payload.prompts[payload.prompt[position]]
        const [fidelity, alignment] = [payload.fidelity, payload.alignment].map((axis) => scoreText(axis[position]))
        const scores = `fidelity ${fidelity}, alignment ${alignment}`
        this.numbers.textContent = `candidate ${position}, ${seedText(payload, position)}; ${scores}`
        // Above or below the point, where there is room, so that the point stays visible.
        const [above, wide] = [spot[1] > height / 2, Math.min(WIDTH, width)]
        const { style } = this.root
        style.width = `${wide}px`
        style.left = `${Math.max(0, Math.min(width - wide, spot[0] - wide / 2))}px`
        style.top = above ? "auto" : `${spot[1] + APART}px`
        style.bottom = above ? `${height - spot[1] + APART}px` : "auto"
    }
}
