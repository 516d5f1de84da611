// From points to lines: pure functions without a page. A point is [step, loss, margin, winner error, mean winner error
// of 20 steps]; rounds follow one another.

const WINDOW = 20

/** All rounds as one series: points with continuous steps, first step of each later round, number of planned steps. */
export function joined(rounds) {
    const points = []
    const borders = []
    let first = 0
    for (const round of rounds) {
        if (first) borders.push(first)
        for (const [step, ...numbers] of round.points) points.push([step + first, ...numbers])
        first += round.steps
    }
    return { points, borders, steps: first }
}

/** One value of the points by step, [[step, value], ...]; missing values are left out. */
export function column(points, index) {
    return points.filter((point) => Number.isFinite(point[index])).map((point) => [point[0], point[index]])
}

/** Mean of the last 20 steps, fewer at the start of a round. */
export function smooth(line, borders = []) {
    const starts = [0, ...borders]
    return line.map(([step], i) => {
        const from = Math.max(step - WINDOW + 1, starts.filter((start) => start <= step).at(-1))
        let sum = 0
        let count = 0
        for (let j = i; j >= 0 && line[j][0] >= from; j--, count++) sum += line[j][1]
        // In a thinned curve the window may hold only this point.
        return [step, sum / count]
    })
}

/** Lowest and highest value with some padding; never equal. */
export function range(values) {
    const low = Math.min(...values)
    const high = Math.max(...values)
    const room = (high - low || Math.abs(high) || 1) * 0.08
    return [low - room, high + room]
}

/** A number in few digits; `signed` adds a plus sign. */
export function said(value, signed = false) {
    const size = Math.abs(value)
    const text =
        size !== 0 && (size < 0.001 || size >= 10000) ? value.toExponential(1) : value.toFixed(size < 0.1 ? 4 : 3)
    return signed && value > 0 ? `+${text}` : text
}
