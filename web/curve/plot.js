// The plot: three strips over the training steps (loss, margin, winner error with its alarm lines) below a line of
// text.

import { draw, make } from "../inspect/dom.js"
import { column, joined, range, said, smooth } from "./series.js"
import { dress } from "./styles.js"

const EMPTY = "Loss, margin and winner error are plotted here during training."
const STRIPS = [
    { name: "loss", index: 1 },
    { name: "margin", index: 2, signed: true },
    { name: "winner error", index: 3, signed: true, alarm: 4 },
]
const LEFT = 8
const RIGHT = 58
const HEAD = 17

export class Plot {
    constructor() {
        dress()
        this.rounds = []
        this.words = make("div", { class: "dbdpo-curve-words" })
        this.svg = draw("svg", { "aria-hidden": "true" })
        this.root = make("div", { class: "dbdpo-curve", role: "img", "aria-label": EMPTY }, this.words, this.svg)
        new ResizeObserver(() => this.redraw()).observe(this.svg)
        this.svg.addEventListener("pointermove", (event) => this.point(event))
        this.svg.addEventListener("pointerleave", () => this.point(null))
        this.show(null)
    }

    /** rounds: [{points, steps, level, warning, collapse, beta}, ...], or null before any training. */
    show(rounds) {
        this.rounds = (rounds ?? []).filter((round) => round.points?.length)
        this.line = joined(this.rounds)
        this.at = null
        this.redraw()
    }

    redraw() {
        const last = this.line.points.at(-1)
        this.root.classList.toggle("dbdpo-curve-empty", !last)
        this.root.dataset.points = this.line.points.length
        this.say(this.at ?? last)
        this.svg.replaceChildren()
        const { clientWidth: width, clientHeight: height } = this.svg
        if (!last || width < 60 || height < 60) return
        this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`)
        const each = height / STRIPS.length
        const x = (step) => LEFT + (step / Math.max(1, this.line.steps - 1)) * (width - LEFT - RIGHT)
        this.x = x
        STRIPS.forEach((strip, i) => this.svg.append(this.strip(strip, x, i * each + HEAD, (i + 1) * each - 5, width)))
        for (const border of this.line.borders) this.svg.append(upright(x(border - 0.5), height, "dbdpo-curve-border"))
        this.mark = upright(x(last[0]), height, "dbdpo-curve-mark")
        if (!this.at) this.mark.setAttribute("visibility", "hidden")
        this.svg.append(this.mark)
    }

    /** One strip between two heights: its lines, their values at the right, its name and last value above. */
    strip(strip, x, top, bottom, width) {
        const { points, borders } = this.line
        const { level, warning, collapse } = this.rounds.at(-1)
        const raw = column(points, strip.index)
        const mean = strip.alarm ? column(points, strip.alarm) : smooth(raw, borders)
        const highest = Math.max(...raw.concat(mean).map((point) => point[1]))
        const lines = strip.alarm
            ? [[0, "zero"], [warning, "warning"], ...(highest > collapse / 2 ? [[collapse, "stop"]] : [])]
            : [[strip.signed ? 0 : level, "zero"]]
        const marks = lines.filter(([value]) => Number.isFinite(value))
        const [low, high] = range(
            raw.concat(mean, marks).map((entry) => (typeof entry[1] === "string" ? entry[0] : entry[1])),
        )
        const y = (value) => bottom - ((value - low) / (high - low)) * (bottom - top)
        const path = (line) => line.map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`).join(" ")
        const end = width - RIGHT
        const parts = [
            draw("rect", { class: "dbdpo-curve-box", x: LEFT, y: top, width: end - LEFT, height: bottom - top }),
        ]
        for (const [value, kind] of marks) {
            parts.push(draw("line", { class: `dbdpo-curve-${kind}`, x1: LEFT, x2: end, y1: y(value), y2: y(value) }))
            if (kind !== "zero" || !strip.signed) parts.push(label(end + 4, y(value), said(value)))
        }
        parts.push(draw("polyline", { class: "dbdpo-curve-raw", points: path(raw) }))
        parts.push(draw("polyline", { class: "dbdpo-curve-mean", points: path(mean) }))
        if (mean.length === 1)
            parts.push(draw("circle", { class: "dbdpo-curve-dot", cx: x(mean[0][0]), cy: y(mean[0][1]), r: 3 }))
        parts.push(draw("text", { class: "dbdpo-curve-name", x: LEFT, y: top - 4, text: strip.name }))
        if (mean.length) {
            const value = mean.at(-1)[1]
            parts.push(
                draw("text", {
                    class: "dbdpo-curve-now",
                    x: end,
                    y: top - 4,
                    "text-anchor": "end",
                    text: said(value, strip.signed),
                }),
            )
        }
        return draw("g", { class: "dbdpo-curve-strip", "data-strip": strip.name }, ...parts)
    }

    /** The text for a point of the curve; for the last one it says whether the winner error is above a limit. */
    say(point) {
        if (!point) {
            this.words.textContent = EMPTY
            this.root.setAttribute("aria-label", EMPTY)
            return
        }
        const { steps } = this.line
        const { warning, collapse, beta } = this.rounds.at(-1)
        const [step, loss, margin, error, alarm] = point
        const several = this.rounds.length > 1 ? `${this.rounds.length} rounds, ` : ""
        const where = `${several}step ${step + 1} of ${steps}`
        const state =
            alarm > collapse
                ? "above the stop limit"
                : alarm > warning
                  ? "above the warning level"
                  : "below the warning level"
        const numbers = [
            ["loss", loss],
            ["margin", margin, true],
            ["winner error", error, true],
        ].filter(([, value]) => Number.isFinite(value))
        const read = numbers.map(([name, value, signed]) => `${name} ${said(value, signed)}`).join(", ")
        // Adapted to the margins: the value of the last step.
        const adapted = beta ? `; beta ${said(beta[0])} (adapted, ${beta[1]} to ${beta[2]})` : ""
        this.words.textContent = this.at ? `${where}: ${read}` : `${where}; winner error ${state}${adapted}`
        this.root.dataset.alarm = alarm > warning ? "on" : "off"
        this.root.setAttribute("aria-label", `${where}: ${read}; ${state} (warning ${said(warning)})${adapted}`)
    }

    /** Shows the values under the pointer. */
    point(event) {
        const { points, steps } = this.line
        if (!points.length || !this.x) return
        this.at = null
        if (event) {
            const inverse = this.svg.getScreenCTM().inverse()
            const left = new DOMPoint(event.clientX, event.clientY).matrixTransform(inverse).x
            const step = ((left - LEFT) / (this.svg.clientWidth - LEFT - RIGHT)) * Math.max(1, steps - 1)
            this.at = points.reduce((best, one) => (Math.abs(one[0] - step) < Math.abs(best[0] - step) ? one : best))
            this.mark.setAttribute("x1", this.x(this.at[0]))
            this.mark.setAttribute("x2", this.x(this.at[0]))
        }
        this.mark.setAttribute("visibility", event ? "visible" : "hidden")
        this.say(this.at ?? points.at(-1))
    }
}

function upright(x, height, kind) {
    return draw("line", { class: kind, x1: x, x2: x, y1: 0, y2: height })
}

function label(x, y, text) {
    return draw("text", { class: "dbdpo-curve-label", x, y: y + 4, text })
}
