// One held-out image before and after, overlaid: drag the line or move it by the arrow keys; choose prompt and seed.

import { make, picture } from "../inspect/dom.js"
import { dress } from "./styles.js"

const EMPTY = "Run the node to compare images of held-out prompts before and after training."
const GONE = "These images are no longer in the run's folder: run the node again."
const STEP = 2

export class Slider {
    /** url(folder, name): the address of an image. */
    constructor(url) {
        dress()
        Object.assign(this, { url, data: null, number: 0, share: 50 })
        this.before = picture({ alt: "before", error: () => this.lost() })
        this.before.addEventListener("load", () =>
            this.stage.style.setProperty("--shape", this.before.naturalWidth / this.before.naturalHeight),
        )
        this.after = picture({ alt: "after", class: "dbdpo-compare-after", error: () => this.lost() })
        this.handle = make("div", { class: "dbdpo-compare-line" })
        this.stage = make(
            "div",
            {
                class: "dbdpo-compare-stage",
                role: "slider",
                tabindex: "0",
                "aria-label": "before and after",
                "aria-valuemin": 0,
                "aria-valuemax": 100,
                pointerdown: (event) => this.grab(event),
                pointermove: (event) => this.drag(event),
                keydown: (event) => this.key(event),
            },
            this.before,
            this.after,
            this.handle,
            make("span", { class: "dbdpo-compare-tag dbdpo-compare-left", text: "before" }),
            make("span", { class: "dbdpo-compare-tag dbdpo-compare-right", text: "after" }),
        )
        this.prompts = make("select", { "aria-label": "prompt", change: () => this.choose() })
        this.seeds = make("select", { "aria-label": "seed", change: () => this.choose() })
        this.words = make("div", { class: "dbdpo-compare-words" })
        const turn = (text, label, by) =>
            make("button", { type: "button", text, "aria-label": label, click: () => this.turn(by) })
        const bar = make(
            "div",
            { class: "dbdpo-compare-bar" },
            turn("‹", "previous image", -1),
            this.prompts,
            this.seeds,
            turn("›", "next image", 1),
        )
        this.note = make("div", { class: "dbdpo-compare-note", text: EMPTY })
        this.body = make("div", { class: "dbdpo-compare-body" }, bar, this.stage, this.words)
        this.root = make("div", { class: "dbdpo-compare" }, this.note, this.body)
        // Keep these events from the canvas, which would move the node or the view.
        for (const type of ["pointerdown", "keydown", "dblclick"])
            this.root.addEventListener(type, (event) => event.stopPropagation())
        this.show(null)
        this.move(50)
    }

    /** data: the node's output (nodes/host/compare.py), or null. */
    show(data) {
        const given = data?.pairs?.length ? data : null
        if (given && !this.gone && JSON.stringify(given) === JSON.stringify(this.data)) return
        this.data = given
        this.body.hidden = !given
        this.note.hidden = Boolean(given)
        this.note.textContent = EMPTY
        if (!given) return
        this.prompts.replaceChildren(...given.prompts.map((text, i) => make("option", { value: i, text })))
        const seeds = [...new Set(given.pairs.map((pair) => pair.seed))]
        this.seeds.replaceChildren(...seeds.map((seed) => make("option", { value: seed, text: `seed ${seed}` })))
        this.number = Math.min(this.number, given.pairs.length - 1)
        this.draw()
    }

    draw() {
        const { pairs, before, after } = this.data
        const pair = pairs[this.number]
        this.gone = false
        this.prompts.value = pair.prompt
        this.seeds.value = pair.seed
        this.prompts.title = this.data.prompts[pair.prompt]
        this.note.hidden = true
        this.stage.hidden = false
        this.before.src = this.url(before, pair.name)
        this.after.src = this.url(after, pair.name)
        this.words.textContent = pair.scores
            .map(([title, old, now]) => `${title} ${old.toFixed(3)} → ${now.toFixed(3)}`)
            .join("; ")
    }

    choose() {
        const found = this.data.pairs.findIndex(
            (pair) => pair.prompt === Number(this.prompts.value) && pair.seed === Number(this.seeds.value),
        )
        this.number = Math.max(0, found)
        this.draw()
    }

    turn(by) {
        const count = this.data.pairs.length
        this.number = (this.number + by + count) % count
        this.draw()
    }

    lost() {
        this.gone = true
        this.note.textContent = GONE
        this.note.hidden = false
        this.stage.hidden = true
    }

    grab(event) {
        this.stage.focus({ preventScroll: true })
        this.stage.setPointerCapture(event.pointerId)
        this.place(event)
        event.preventDefault()
    }

    drag(event) {
        if (this.stage.hasPointerCapture(event.pointerId)) this.place(event)
    }

    /** Moves the line to the pointer. */
    place(event) {
        const box = this.stage.getBoundingClientRect()
        this.move(((event.clientX - box.left) / box.width) * 100)
    }

    key(event) {
        const by = { ArrowLeft: -STEP, ArrowRight: STEP, Home: -100, End: 100 }[event.key]
        const turn = { ArrowUp: -1, ArrowDown: 1 }[event.key]
        if (by !== undefined) this.move(this.share + by)
        else if (turn) this.turn(turn)
        else return
        event.preventDefault()
    }

    /** share: per cent of the image, from the left, that shows the model before training. */
    move(share) {
        this.share = Math.min(100, Math.max(0, share))
        this.stage.style.setProperty("--share", `${this.share}%`)
        this.stage.setAttribute("aria-valuenow", Math.round(this.share))
        this.stage.setAttribute("aria-valuetext", `${Math.round(this.share)} % before`)
    }
}
