// Curves of trainings that run, or that ended without an output of their own: by workflow and node, since both may be out of sight meanwhile.

const live = new Map()
let prompt = null

function key(workflow, node) {
    return `${workflow ?? ""}|${node}`
}

/** A run of a workflow began: what comes now replaces what was there before. */
export function begin(id) {
    prompt = id
}

/** It ended well: nodes that trained themselves now have outputs, which hold their curves. A loop's node keeps what was sent for now. */
export function settle() {
    for (const [name, kept] of live) if (!kept.loop) live.delete(name)
}

/** A run was read back from the history, with `curves(node)` curves for a loop's node: what was sent is left, unless it is more. */
export function leave(id, curves) {
    for (const [name, kept] of live) if (kept.loop && kept.prompt === id && curves(kept.node) >= kept.rounds.length) live.delete(name)
}

/** Take a message of the server in. */
export function take(message) {
    const name = key(message.workflow, message.node)
    let kept = live.get(name)
    if (!kept || kept.prompt !== prompt) {
        kept = { prompt, workflow: message.workflow, node: message.node, loop: message.node !== message.source, rounds: [] }
        live.set(name, kept)
    }
    let round = kept.rounds.find((one) => one.source === message.source)
    if (!round) kept.rounds.push((round = { source: message.source, points: [] }))
    const before = message.whole ? [] : round.points
    Object.assign(round, message, { points: [...before, ...message.points] })
}

/** The rounds of the live curve of the node for whose id `is(id)` holds, or null. */
export function rounds(workflow, is) {
    for (const kept of live.values()) if (kept.workflow === workflow && is(kept.node)) return kept.rounds
    return null
}
