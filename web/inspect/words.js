// What the panel says of the decisions.

/** "1 pair", "2 pairs". */
export function many(count, one, more = `${one}s`) {
    return `${count} ${count === 1 ? one : more}`
}

/** What goes to training. */
export function counted(state) {
    const { pairs, keep, swap, reject, up, down } = state.counts
    const thumbs = up + down ? `; thumbs: ${up} up, ${down} down` : ""
    const trained = `${many(pairs - reject, "pair")} go to training`
    return `${trained}: ${keep} confirmed, ${swap} swapped; ${reject} rejected${thumbs}`
}

/** Decisions without effect, and those that the last run did not have. */
export function noted(state) {
    const said = []
    if (state.stale)
        said.push(
            `${many(state.stale, "decision")} ignored: made on other candidates, or on pairs that no longer exist.`,
        )
    if (state.pending) said.push("Press Run to apply your decisions.")
    return said.join(" ")
}
