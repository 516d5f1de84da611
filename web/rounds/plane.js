// The fidelity-alignment plane as SVG: the start and one point for each measured round, joined in their order.

import { draw } from "../inspect/dom.js"

const EDGE = { left: 12, right: 16, top: 18, bottom: 22 }

/** Lowest and highest value with some padding; never equal. */
function range(values) {
    const [low, high] = [Math.min(...values), Math.max(...values)]
    const room = (high - low || Math.abs(high) || 1) * 0.18
    return [low - room, high + room]
}

/** Places of the points in a box of this size: [{round, x, y}, ...]. points: [round, fidelity, alignment]. */
export function places(points, width, height) {
    const [x0, x1] = range(points.map((point) => point[1]))
    const [y0, y1] = range(points.map((point) => point[2]))
    const [wide, high] = [width - EDGE.left - EDGE.right, height - EDGE.top - EDGE.bottom]
    return points.map(([round, fidelity, alignment]) => ({
        round,
        x: EDGE.left + ((fidelity - x0) / (x1 - x0)) * wide,
        y: height - EDGE.bottom - ((alignment - y0) / (y1 - y0)) * high,
    }))
}

/** Fills the svg; `kept` is the number of the kept round. */
export function drawPlane(svg, points, kept) {
    const { clientWidth: width, clientHeight: height } = svg
    svg.replaceChildren()
    if (width < 60 || height < 60) return
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`)
    const [right, bottom] = [width - EDGE.right, height - EDGE.bottom]
    svg.append(
        draw("rect", {
            class: "dbdpo-rounds-box",
            x: EDGE.left,
            y: EDGE.top,
            width: right - EDGE.left,
            height: bottom - EDGE.top,
        }),
        draw("text", { class: "dbdpo-rounds-axis", x: right, y: height - 6, "text-anchor": "end", text: "fidelity →" }),
        draw("text", { class: "dbdpo-rounds-axis", x: EDGE.left, y: 12, text: "↑ alignment" }),
    )
    const at = places(points, width, height)
    const line = at.map(({ x, y }) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ")
    svg.append(draw("polyline", { class: "dbdpo-rounds-path", points: line }))
    for (const { round, x, y } of at) {
        const kind = round === kept ? "dbdpo-rounds-dot dbdpo-rounds-kept" : "dbdpo-rounds-dot"
        svg.append(
            draw("circle", { class: kind, cx: x, cy: y, r: round === kept ? 6 : 4, "data-round": round }),
            draw("text", {
                class: "dbdpo-rounds-number",
                x,
                y: y - 9,
                "text-anchor": x > right - 24 ? "end" : "middle",
                text: (round ? String(round) : "start") + (round === kept ? " ★" : ""),
            }),
        )
    }
}
