// The fidelity-alignment cloud in SVG: candidates as points, pairs as arrows from loser to winner, and the rule's angle
// window or the direction in which its reward rises. All points or arrows of one kind are one path, so that 500 cost as
// little as five; what is under the pointer is computed from positions.

import { draw, make } from "./dom.js"
import { MARKS, SHAPES, apart, arrow, circle, pointed, round } from "./shapes.js"
import { Tip } from "./tip.js"

const SIZE = 640
const LEFT = 66
const TOP = 14
const SIDE = 560
const NEAR_POINT = 20
const NEAR_ARROW = 12
const KINDS = ["undecided", "keep", "swap", "reject"]
const ROLES = ["none", "loser", "winner", "both"]
let clouds = 0

/** Sets a path only if it has changed, to avoid repainting. */
function put(path, d) {
    if (path.getAttribute("d") !== d) path.setAttribute("d", d)
}

export class Cloud {
    /**
     * @param state the Inspection
     * @param pick called with ("pairs", id) or ("candidates", position)
     * @param url the address of a preview by its name
     */
    constructor(state, pick, url) {
        this.state = state
        this.pick = pick
        this.tip = new Tip(url)
        const clip = `dbdpo-cloud-${++clouds}`
        const path = (name) => draw("path", { class: `dbdpo-${name}` })
        this.grid = path("grid")
        this.ticks = draw("g", { class: "dbdpo-ticks" })
        this.wedge = path("wedge")
        this.level = path("level")
        this.way = path("way")
        this.arrows = Object.fromEntries(KINDS.map((kind) => [kind, path(`arrow dbdpo-${kind}`)]))
        this.points = Object.fromEntries(ROLES.map((role) => [role, path(`point dbdpo-${role}`)]))
        this.thumbs = path("thumbs")
        this.chosen = path("chosen")
        this.hover = path("hover")
        this.svg = draw(
            "svg",
            {
                viewBox: `0 0 ${SIZE} ${SIZE}`,
                role: "img",
                "aria-label": "Candidates by fidelity and alignment, pairs as arrows",
            },
            draw("clipPath", { id: clip }, draw("rect", { x: LEFT, y: TOP, width: SIDE, height: SIDE })),
            this.grid,
            this.ticks,
            draw(
                "g",
                { "clip-path": `url(#${clip})` },
                this.wedge,
                this.level,
                ...Object.values(this.arrows),
                ...Object.values(this.points),
                this.way,
                this.thumbs,
                this.chosen,
                this.hover,
            ),
            draw("text", {
                class: "dbdpo-axis",
                x: LEFT + SIDE / 2,
                y: SIZE - 10,
                text: "fidelity above the prompt's mean (SD)",
            }),
            draw("text", {
                class: "dbdpo-axis",
                transform: `translate(18 ${TOP + SIDE / 2}) rotate(-90)`,
                text: "alignment above the prompt's mean (SD)",
            }),
        )
        this.svg.addEventListener("pointermove", (event) => this.look(event))
        this.svg.addEventListener("pointerleave", () => this.lookAt(null))
        this.svg.addEventListener("click", (event) => this.click(event))
        this.root = make("div", { class: "dbdpo-cloud" }, this.svg, this.tip.root)
    }

    /** New candidates: compute their positions. */
    place() {
        const { x, y } = this.state.payload
        // A square around all candidates, so that angles are not distorted.
        const scored = [x, y].map((values) => values.filter((value) => value !== null))
        const ends = scored.map((values) => (values.length ? [Math.min(...values), Math.max(...values)] : [0, 0]))
        this.middle = ends.map(([low, high]) => (low + high) / 2)
        this.reach = Math.max(1, ...ends.map(([low, high]) => 0.55 * (high - low)))
        // A candidate without a score has no place.
        this.at = x.map((_, i) => (x[i] === null ? null : [round(this.across(x[i])), round(this.down(y[i]))]))
        this.lookAt(null)
        this.drawGrid()
        this.drawWay()
    }

    across(value) {
        return LEFT + ((value - this.middle[0] + this.reach) / (2 * this.reach)) * SIDE
    }

    down(value) {
        return TOP + ((this.reach - value + this.middle[1]) / (2 * this.reach)) * SIDE
    }

    drawGrid() {
        const every = Math.max(1, Math.ceil(this.reach / 5))
        const [columns, rows] = this.middle.map((middle) => {
            const values = []
            for (let v = Math.ceil((middle - this.reach) / every) * every; v <= middle + this.reach; v += every)
                values.push(v)
            return values
        })
        const lines = [
            ...columns.map((v) => `M${round(this.across(v))} ${TOP}v${SIDE}`),
            ...rows.map((v) => `M${LEFT} ${round(this.down(v))}h${SIDE}`),
        ]
        this.grid.setAttribute("d", lines.join(""))
        this.ticks.replaceChildren(
            ...columns.map((v) =>
                draw("text", { x: round(this.across(v)), y: TOP + SIDE + 24, "text-anchor": "middle", text: v }),
            ),
            ...rows.map((v) =>
                draw("text", { x: LEFT - 8, y: round(this.down(v)) + 7, "text-anchor": "end", text: v }),
            ),
        )
    }

    render() {
        const { state } = this
        const pairs = state.shownPairs
        const edits = state.edits
        const paths = Object.fromEntries(KINDS.map((kind) => [kind, []]))
        const [won, lost] = [new Set(), new Set()]
        for (const pair of pairs) {
            const decision = edits.pairs[pair.id] ?? "undecided"
            const [from, to] = decision === "swap" ? [pair.winner, pair.loser] : [pair.loser, pair.winner]
            paths[decision].push(arrow(this.at[from], this.at[to], decision === "reject"))
            if (decision === "reject") continue
            won.add(to)
            lost.add(from)
        }
        for (const kind of KINDS) put(this.arrows[kind], paths[kind].join(""))
        // Few arrows are drawn strongly; many are faint, so that the overall direction shows.
        this.arrows.undecided.style.opacity = Math.max(0.28, Math.min(0.8, 24 / Math.max(1, pairs.length)))
        this.drawPoints(won, lost, edits.candidates)
        this.drawChosen(edits)
    }

    drawPoints(won, lost, thumbs) {
        const points = Object.fromEntries(ROLES.map((role) => [role, []]))
        const marks = []
        this.at.forEach((place, i) => {
            if (!place || !this.state.shows(i)) return
            const [x, y] = place
            const role = won.has(i) ? (lost.has(i) ? "both" : "winner") : lost.has(i) ? "loser" : "none"
            points[role].push(SHAPES[role](x, y))
            if (thumbs[i]) marks.push(MARKS[thumbs[i]](x, y))
        })
        for (const role of ROLES) put(this.points[role], points[role].join(""))
        put(this.thumbs, marks.join(""))
    }

    /** The selected pair or candidate, and the angle window at that pair's loser (else at the mean loser). */
    drawChosen(edits) {
        const { pair, selected, payload } = this.state
        let path = ""
        if (pair) {
            const decision = edits.pairs[pair.id]
            const ends = [this.at[pair.loser], this.at[pair.winner]]
            if (decision === "swap") ends.reverse()
            path = arrow(...ends, decision === "reject", 15) + ends.map(([x, y]) => circle(x, y, 14)).join("")
        } else if (selected !== null && this.at[selected]) path = circle(...this.at[selected], 14)
        put(this.chosen, path)
        if (!payload.window) return put(this.wedge, "")
        const losers = pair ? [pair.loser] : payload.pairs.map((p) => p.loser)
        const mean = (values) => losers.reduce((sum, i) => sum + values[i], 0) / Math.max(1, losers.length)
        this.drawWedge(
            mean(payload.x),
            mean(payload.y),
            Math.max(0.55 * this.reach, 1.25 * payload.margin, 1.12 * (pair?.length ?? 0)),
        )
    }

    drawWedge(x, y, far) {
        const {
            window: [low, high],
            margin,
        } = this.state.payload
        const at = (radius, degrees) => {
            const angle = (degrees * Math.PI) / 180
            const point = [this.across(x + radius * Math.cos(angle)), this.down(y + radius * Math.sin(angle))]
            return point.map(round).join(" ")
        }
        const scale = SIDE / (2 * this.reach)
        const large = high - low > 180 ? 1 : 0
        const [inner, outer] = [round(margin * scale), round(far * scale)]
        put(
            this.wedge,
            `M${at(margin, low)}L${at(far, low)}A${outer} ${outer} 0 ${large} 0 ${at(far, high)}L${at(margin, high)}` +
                `A${inner} ${inner} 0 ${large} 1 ${at(margin, low)}z`,
        )
    }

    /** The direction in which the reward rises from the mean candidate, and the line of equal reward through it. */
    drawWay() {
        const { way } = this.state.payload
        const there = way !== null && way !== undefined
        const angle = ((way ?? 0) * Math.PI) / 180
        const step = [Math.cos(angle), Math.sin(angle)]
        // The mean may be off-centre: end the arrow before the border.
        const room = step.map(
            (part, i) => (this.reach + Math.sign(part) * this.middle[i]) / Math.max(1e-6, Math.abs(part)),
        )
        const far = Math.min(0.8 * this.reach, ...room.map((length) => 0.95 * length))
        const at = (across, up) => [this.across(across), this.down(up)].map(round)
        const along = 4 * this.reach
        this.way.setAttribute("d", there ? pointed(at(0, 0), at(far * step[0], far * step[1])) : "")
        this.level.setAttribute(
            "d",
            there ? `M${at(-along * step[1], along * step[0])}L${at(along * step[1], -along * step[0])}` : "",
        )
    }

    // --- the pointer ---

    /** Position of an event in the SVG's units, at any zoom. */
    here(event) {
        const to = this.svg.getScreenCTM()
        if (!to || !this.at) return null
        return [(event.clientX - to.e) / to.a, (event.clientY - to.f) / to.d]
    }

    nearest(point) {
        let [best, least] = [null, NEAR_POINT]
        this.at.forEach((place, i) => {
            if (!place || !this.state.shows(i)) return
            const distance = Math.hypot(place[0] - point[0], place[1] - point[1])
            if (distance < least) [best, least] = [i, distance]
        })
        return best
    }

    look(event) {
        const point = this.here(event)
        this.lookAt(point && this.nearest(point))
    }

    lookAt(position) {
        if (position === this.looked) return
        this.looked = position
        this.hover.setAttribute("d", position === null ? "" : circle(...this.at[position], 11))
        const scale = Math.min(this.svg.clientWidth, this.svg.clientHeight) / SIZE
        const pad = [(this.svg.clientWidth - scale * SIZE) / 2, (this.svg.clientHeight - scale * SIZE) / 2]
        const spot = position === null ? null : this.at[position].map((v, i) => pad[i] + v * scale)
        this.tip.show(this.state.payload, position, spot, [this.svg.clientWidth, this.svg.clientHeight])
    }

    click(event) {
        const point = this.here(event)
        if (!point) return
        const position = this.nearest(point)
        if (position !== null) {
            const pair = this.state.pairOf(position)
            return pair ? this.pick("pairs", pair.id) : this.pick("candidates", position)
        }
        let [best, least] = [null, NEAR_ARROW]
        for (const pair of this.state.shownPairs) {
            const distance = apart(point, this.at[pair.loser], this.at[pair.winner])
            if (distance < least) [best, least] = [pair.id, distance]
        }
        if (best !== null) this.pick("pairs", best)
    }
}
