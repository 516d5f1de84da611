// Path data of the cloud's points, marks and arrows, and distances between them. Pure functions.

export const SHAPES = {
    none: (x, y) => circle(x, y, 4),
    winner: (x, y) => circle(x, y, 6.5),
    loser: (x, y) => `M${x - 8} ${y - 6}h16l-8 14z`,
    both: (x, y) => `M${x} ${y - 8.5}l8.5 8.5l-8.5 8.5l-8.5 -8.5z`,
}
export const MARKS = {
    up: (x, y) => `M${x + 10} ${y - 10}h10m-5 -5v10`,
    down: (x, y) => `M${x + 10} ${y - 10}h10`,
}

export function circle(x, y, r) {
    return `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`
}

export function round(value) {
    return Math.round(value * 10) / 10
}

/** An arrow between two points of the plot, shortened at both ends; `crossed` adds a cross. */
export function arrow([x0, y0], [x1, y1], crossed, short = 9) {
    const length = Math.hypot(x1 - x0, y1 - y0)
    if (length < 1) return ""
    const [ux, uy] = [(x1 - x0) / length, (y1 - y0) / length]
    const gap = Math.min(short, length / 4)
    const [bx, by, ex, ey] = [x0 + ux * gap, y0 + uy * gap, x1 - ux * gap, y1 - uy * gap].map(round)
    const head = [1, -1]
        .map((s) => `M${round(ex - 10 * ux + s * 5 * uy)} ${round(ey - 10 * uy - s * 5 * ux)}L${ex} ${ey}`)
        .join("")
    const [mx, my] = [round((x0 + x1) / 2), round((y0 + y1) / 2)]
    const cross = crossed ? `M${mx - 7} ${my - 7}l14 14M${mx + 7} ${my - 7}l-14 14` : ""
    return `M${bx} ${by}L${ex} ${ey}${head}${cross}`
}

/** A thick arrow with a full head. */
export function pointed([x0, y0], [x1, y1]) {
    const length = Math.max(1, Math.hypot(x1 - x0, y1 - y0))
    const [ux, uy] = [(x1 - x0) / length, (y1 - y0) / length]
    const [bx, by] = [x1 - 20 * ux, y1 - 20 * uy]
    const corners = [
        [x0 + 3 * uy, y0 - 3 * ux],
        [bx + 3 * uy, by - 3 * ux],
        [bx + 11 * uy, by - 11 * ux],
        [x1, y1],
        [bx - 11 * uy, by + 11 * ux],
        [bx - 3 * uy, by + 3 * ux],
        [x0 - 3 * uy, y0 + 3 * ux],
    ]
    return `M${corners.map((corner) => corner.map(round)).join("L")}z`
}

/** Distance of a point from the segment between two others. */
export function apart([x, y], [ax, ay], [bx, by]) {
    const length = (bx - ax) ** 2 + (by - ay) ** 2
    const t = length ? Math.max(0, Math.min(1, ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length)) : 0
    return Math.hypot(x - ax - t * (bx - ax), y - ay - t * (by - ay))
}
