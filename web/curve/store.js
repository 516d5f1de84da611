// Curves of trainings that are running, or that ended without an output of their own. Stored by workflow and node,
// because neither need be visible meanwhile.

const live = new Map()
let prompt = null

function key(workflow, node) {
    return `${workflow ?? ""}|${node}`
}

/** A run started: its curves replace the earlier ones. */
export function begin(id) {
    prompt = id
}

/** The run succeeded: train nodes now have outputs with their curves. The curves of a loop node stay for now. */
export function settle() {
    for (const [name, kept] of live) if (!kept.loop) live.delete(name)
}

/** The history of run `id` has `curves(node)` curves for a loop node: drop the live ones unless they are more. */
export function leave(id, curves) {
    for (const [name, kept] of live)
        if (kept.loop && kept.prompt === id && curves(kept.node) >= kept.rounds.length) live.delete(name)
}

/** Add a message from the server. */
export function take(message) {
    const name = key(message.workflow, message.node)
    let kept = live.get(name)
    if (!kept || kept.prompt !== prompt) {
        kept = {
            prompt,
            workflow: message.workflow,
            node: message.node,
            loop: message.node !== message.source,
            rounds: [],
        }
        live.set(name, kept)
    }
    let round = kept.rounds.find((one) => one.source === message.source)
    if (!round) kept.rounds.push((round = { source: message.source, points: [] }))
    const before = message.whole ? [] : round.points
    Object.assign(round, message, { points: [...before, ...message.points] })
}

/** The rounds of the live curve of the node whose id satisfies `is(id)`, or null. */
export function rounds(workflow, is) {
    for (const kept of live.values()) if (kept.workflow === workflow && is(kept.node)) return kept.rounds
    return null
}
