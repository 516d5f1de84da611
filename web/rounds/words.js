// From the state of a run to its sentences: pure functions without a page.

/** "8 s", "3 min", "2 h 05 min", as dpo_core/progress.py. */
export function duration(seconds) {
    const whole = Math.max(0, Math.round(seconds))
    if (whole < 90) return `${whole} s`
    const minutes = Math.round(whole / 60)
    return minutes < 90 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`
}

const ENDED = { interrupted: "Interrupted", failed: "Ended by an error" }

/** The first line: round and stage, or how the run ended. */
export function headline(state, kept) {
    if (state?.over === "done" || (!state && kept)) return "Finished"
    if (state?.over) return `${ENDED[state.over]} in round ${state.round} of ${state.rounds}. Run again to continue.`
    if (!state) return "Press Run: progress, time left and pictures of the run appear here."
    return `Round ${state.round} of ${state.rounds} · ${state.stage}`
}

/** Elapsed time and time left, `more` seconds after the state was sent. No number before there is a measured rate. */
export function times(state, more = 0) {
    if (!state) return ""
    if (state.over) return `${duration(state.elapsed)} elapsed`
    const elapsed = `${duration(state.elapsed + more)} elapsed`
    if (state.left === null) return `${elapsed} · time left: measuring`
    const rest = state.unmeasured.length ? ` (not measured yet: ${state.unmeasured.join(", ")})` : ""
    return `${elapsed} · about ${duration(state.left - more)} left${rest}`
}

/** What the stop button says and whether it can be pressed: [text, title, enabled]. */
export function stopButton(state) {
    const text = "Stop, keep the best"
    if (!state || state.over) return [text, "Nothing is running.", false]
    if (!state.measured) return [text, "keep = last measures no round, so there is no best one. Use Cancel.", false]
    if (!state.stopping)
        return [text, "Ends the loop. The outputs are those of the best round so far; the next run goes on.", true]
    if (!state.points?.length) return ["Stops after round 1 is measured", "Without it there is nothing to keep.", false]
    return ["Stopping ...", "The outputs are those of the best round so far.", false]
}
