// Which value belongs to which widget of a saved node. The front end goes by their order; a graph of an older version
// may have another one.

/** What a version without a widget did, by widget, where that is not the default: from the node's definition. */
export function before(nodeData) {
    const inputs = Object.entries(nodeData?.input?.optional ?? {}).map(([name, [, options]]) => [name, options?.dbdpo_before])
    return Object.fromEntries(inputs.filter(([, value]) => value !== undefined))
}

/** The names of a saved node's widgets, in the order of its values; null where the graph does not tell them. */
export function namesOf(saved) {
    const names = (saved.inputs ?? []).filter((input) => input.widget).map((input) => input.widget.name)
    const values = saved.widgets_values
    return Array.isArray(values) && names.length > 0 && names.length <= values.length ? names : null
}

/**
 * New values of a node's widgets, by name: those that were saved under the name, and for a widget that the graph does
 * not know what its version did. `earlier`: see `before`; `widgets`: the node's own, in order; `names`: those that were
 * saved, see `namesOf`. Empty where the order is still theirs, or where there are none.
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
