// The last state of every DPO Rounds that sent messages to this page, by workflow and node: neither need be visible.

const states = new Map()

function key(workflow, node) {
    return `${workflow ?? ""}|${node}`
}

/** A message from the server, which holds the whole state; `at` is the page's clock, in milliseconds. */
export function take(message, at) {
    states.set(key(message.workflow, message.node), { ...message, at, over: null })
}

/** A prompt started. What an earlier run showed stays until its node runs again, but it runs no more. */
export function start() {
    finish("interrupted")
}

/** The prompt ended: `how` is "done", "interrupted" or "failed". */
export function finish(how) {
    for (const state of states.values()) state.over ??= how
}

/** The state of the node whose id satisfies `is(id)`, or null. */
export function stateOf(workflow, is) {
    for (const state of states.values()) if (state.workflow === workflow && is(state.node)) return state
    return null
}
