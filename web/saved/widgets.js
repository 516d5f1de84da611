// Assigns the values of a saved node to its widgets. The front end assigns them by order, which may differ in a graph
// of an older version.

/** The behaviour of versions that lacked a widget, where it differs from the widget's default. */
export const BEFORE = {
    DBDPO_BuildPairs: { rule: "angle_window", combine: "mean" },
    DBDPO_TrainStep: { schedule: "constant" },
    DBDPO_Rounds: { rule: "angle_window", combine: "mean", schedule: "constant" },
}

/** The names of a saved node's widgets, in the order of its values; null if the graph does not hold them. */
export function namesOf(saved) {
    const names = (saved.inputs ?? []).filter((input) => input.widget).map((input) => input.widget.name)
    const values = saved.widgets_values
    return Array.isArray(values) && names.length > 0 && names.length <= values.length ? names : null
}

/**
 * New values of a node's widgets, by name: the saved value or, for a widget that the graph does not have, the behaviour
 * of the graph's version. `widgets`: the node's own, in order; `names`: the saved ones, see `namesOf`. Empty if there
 * are no saved names or the order has not changed.
 */
export function restored(type, widgets, names, values) {
    const own = widgets
        .filter((widget) => widget.serialize !== false && widget.options?.serialize !== false)
        .map((widget) => widget.name)
    if (!names || (names.length === own.length && names.every((name, i) => name === own[i]))) return {}
    const kept = Object.fromEntries(names.map((name, i) => [name, values[i]]))
    const before = { ...(BEFORE[type] ?? {}) }
    const found = {}
    for (const name of own) {
        if (name in kept) found[name] = kept[name]
        else if (name in before) found[name] = before[name]
    }
    return found
}
