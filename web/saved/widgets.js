// Assigns the values of a saved node to its widgets. The front end assigns them by order, which may differ in a graph
// of an older version.

/** By widget, the behaviour of versions that lacked it, where it differs from the default: from the node's definition. */
export function before(nodeData) {
    const inputs = Object.entries(nodeData?.input?.optional ?? {})
    const values = inputs.map(([name, [, options]]) => [name, options?.dbdpo_before])
    return Object.fromEntries(values.filter(([, value]) => value !== undefined))
}

/** The names of a saved node's widgets, in the order of its values; null if the graph does not hold them. */
export function namesOf(saved) {
    const names = (saved.inputs ?? []).filter((input) => input.widget).map((input) => input.widget.name)
    const values = saved.widgets_values
    return Array.isArray(values) && names.length > 0 && names.length <= values.length ? names : null
}

/**
 * New values of a node's widgets, by name: the saved value or, for a widget that the graph does not have, the behaviour
 * of the graph's version. `earlier`: see `before`; `widgets`: the node's own, in order; `names`: the saved ones, see
 * `namesOf`. Empty if there are no saved names or the order has not changed.
 */
export function restored(earlier, widgets, names, values) {
    const own = widgets
        .filter((widget) => widget.serialize !== false && widget.options?.serialize !== false)
        .map((widget) => widget.name)
    if (!names || (names.length === own.length && names.every((name, i) => name === own[i]))) return {}
    const kept = Object.fromEntries(names.map((name, i) => [name, values[i]]))
    const found = {}
    for (const name of own) {
        if (name in kept) found[name] = kept[name]
        else if (name in earlier) found[name] = earlier[name]
    }
    return found
}
