// Which widgets of a node are shown: pure functions of the inputs' definitions and the widgets' values. A definition is
// the options of an input as Python declares it: `advanced`, `default`, and `dbdpo_used_with`, {other widget: values}.

/** The definitions of a node's inputs by name. */
export function definitions(nodeData) {
    const { required = {}, optional = {} } = nodeData?.input ?? {}
    const entries = Object.entries({ ...required, ...optional })
    return Object.fromEntries(entries.map(([name, [type, options]]) => [name, { ...options, type }]))
}

/** The value of an input that was never set: a list's first entry where it has no default. */
function untouched(definition) {
    const list = Array.isArray(definition.type) ? definition.type : definition.options
    return definition.default ?? list?.[0]
}

/** Whether a value is one of `wanted`; "*.txt" stands for every text that ends in ".txt", "?*" for every one but "". */
function among(value, wanted) {
    const fits = (one) => {
        if (one === "?*") return Boolean(value)
        return one.startsWith("*") ? String(value).endsWith(one.slice(1)) : value === one
    }
    return wanted.some(fits)
}

/**
 * By widget: "shown", "advanced" (hidden until advanced inputs are asked for) or "unused" (no effect with the values of
 * the others). `values`: by widget; `linked`: names of widgets that take their value from a link.
 */
export function tiers(defined, values, linked) {
    const found = {}
    for (const [name, definition] of Object.entries(defined)) {
        if (!(name in values)) continue
        const used = Object.entries(definition.dbdpo_used_with ?? {}).every(
            ([other, wanted]) => linked.has(other) || among(values[other], wanted),
        )
        if (linked.has(name)) found[name] = "shown"
        else if (!used) found[name] = "unused"
        else found[name] = definition.advanced && values[name] === untouched(definition) ? "advanced" : "shown"
    }
    return found
}
