// The inspector's state: incoming pairs, decisions, selection and undo history. No DOM access.

const VERSION = 1
const MOST_STEPS_BACK = 200

function blank(fingerprint) {
    return { version: VERSION, fingerprint, pairs: {}, candidates: {} }
}

function read(text) {
    if (!text) return null
    try {
        const edits = JSON.parse(text)
        return edits?.version === VERSION ? { ...blank(""), ...edits } : null
    } catch {
        return null // not written by the panel: Python reports the error
    }
}

function sorted(object) {
    return Object.fromEntries(Object.entries(object).sort(([a], [b]) => parseInt(a) - parseInt(b) || (a < b ? -1 : 1)))
}

/** Equal decisions give equal text, no decisions the empty text: the text is part of the node's cache key. */
function write(edits) {
    if (size(edits) === 0) return ""
    const { version, fingerprint, pairs, candidates } = edits
    return JSON.stringify({ version, fingerprint, pairs: sorted(pairs), candidates: sorted(candidates) })
}

function size(edits) {
    return Object.keys(edits.pairs).length + Object.keys(edits.candidates).length
}

export class Inspection {
    payload = null
    text = ""
    /** Index of the prompt that is shown, -1 for all. */
    filter = -1
    /** "pairs" or "candidates": what next and previous step through. */
    mode = "pairs"
    /** Id of the selected pair, or position of the selected candidate. */
    selected = null
    past = []
    /** Fingerprint of the candidates that `past` belongs to. */
    of = null

    take(payload) {
        if (payload && payload.fingerprint !== this.of) {
            this.past = []
            this.of = payload.fingerprint
        }
        this.payload = payload
        this.byId = new Map((payload?.pairs ?? []).map((pair) => [pair.id, pair]))
        if (this.filter >= (payload?.prompts.length ?? 0)) this.filter = -1
        this.settle()
    }

    setText(text) {
        this.text = text ?? ""
    }

    /** The decisions on these candidates; decisions on others are ignored. */
    get edits() {
        const {
            text,
            payload: { fingerprint },
        } = this
        if (this.known?.text !== text || this.known.fingerprint !== fingerprint) {
            const found = read(text)
            this.known = { text, fingerprint, edits: found?.fingerprint === fingerprint ? found : blank(fingerprint) }
        }
        return this.known.edits
    }

    /** Number of decisions that match no incoming pair or candidate. */
    get stale() {
        const found = read(this.text)
        if (!found) return 0
        if (found.fingerprint !== this.payload.fingerprint) return size(found)
        const gone = Object.keys(found.candidates).filter((position) => Number(position) >= this.payload.prompt.length)
        return Object.keys(found.pairs).filter((id) => !this.byId.has(id)).length + gone.length
    }

    /** Whether there are decisions that the last run did not use. */
    get pending() {
        return this.text !== this.payload.taken
    }

    get counts() {
        const edits = this.edits
        const pairs = Object.entries(edits.pairs)
            .filter(([id]) => this.byId.has(id))
            .map(([, decision]) => decision)
        const thumbs = Object.values(edits.candidates)
        const of = (list, what) => list.filter((one) => one === what).length
        return {
            pairs: this.payload.pairs.length,
            keep: of(pairs, "keep"),
            swap: of(pairs, "swap"),
            reject: of(pairs, "reject"),
            up: of(thumbs, "up"),
            down: of(thumbs, "down"),
        }
    }

    decisionOn(id) {
        return this.edits.pairs[id] ?? null
    }

    thumbOn(position) {
        return this.edits.candidates[position] ?? null
    }

    // --- what is shown, and which of it is selected ---

    shows(position) {
        return this.filter < 0 || this.payload.prompt[position] === this.filter
    }

    get shownPairs() {
        return this.payload.pairs.filter((pair) => this.shows(pair.winner))
    }

    /** What next and previous step through: ids of pairs, or positions of candidates. */
    get list() {
        if (!this.payload) return []
        if (this.mode === "pairs") return this.shownPairs.map((pair) => pair.id)
        return this.payload.prompt.map((_, position) => position).filter((position) => this.shows(position))
    }

    get pair() {
        return this.mode === "pairs" ? (this.byId?.get(this.selected) ?? null) : null
    }

    settle() {
        const list = this.list
        if (!list.includes(this.selected)) this.selected = list[0] ?? null
    }

    show(filter) {
        this.filter = filter
        this.settle()
    }

    setMode(mode) {
        const pair = this.pair
        this.mode = mode
        if (mode === "candidates" && pair) this.selected = pair.winner
        this.settle()
    }

    select(mode, what) {
        this.mode = mode
        this.selected = what
    }

    /** Select the next (1) or previous (-1) item of the list; stop at its ends. */
    step(by) {
        const list = this.list
        const at = Math.min(list.length - 1, Math.max(0, list.indexOf(this.selected) + by))
        this.selected = list[at] ?? null
    }

    end(last) {
        this.selected = this.list.at(last ? -1 : 0) ?? null
    }

    /** A pair with this candidate; when called again, the next one. */
    pairOf(position) {
        const pairs = this.shownPairs.filter((pair) => pair.winner === position || pair.loser === position)
        const at = pairs.findIndex((pair) => pair.id === this.selected)
        return pairs.length ? pairs[(at + 1) % pairs.length] : null
    }

    // --- decisions; each returns whether the text has changed ---

    change(edit) {
        const edits = structuredClone(this.edits)
        edit(edits)
        return this.put(write(edits))
    }

    put(text) {
        if (text === this.text) return false
        const { selected, mode, filter } = this
        this.past = [...this.past.slice(1 - MOST_STEPS_BACK), { text: this.text, selected, mode, filter }]
        this.text = text
        return true
    }

    /** Keep, swap or reject the selected pair; the same decision again removes it. */
    decide(decision) {
        return this.choose(this.pair && this.decisionOn(this.pair.id) === decision ? null : decision)
    }

    /** Set the decision on the selected pair; null removes it. */
    choose(decision) {
        const pair = this.pair
        if (!pair) return false
        return this.change((edits) => {
            delete edits.pairs[`${pair.loser}-${pair.winner}`]
            if (decision) edits.pairs[pair.id] = decision
            else delete edits.pairs[pair.id]
        })
    }

    thumb(position, way) {
        return this.change((edits) => {
            if (edits.candidates[position] === way) delete edits.candidates[position]
            else edits.candidates[position] = way
        })
    }

    /** Number of decisions that can be restored from the run; 0 once there is a decision here. */
    get restorable() {
        return this.payload?.kept && size(this.edits) === 0 ? size(this.payload.kept) : 0
    }

    restore() {
        return this.restorable > 0 && this.put(write(this.payload.kept))
    }

    get canUndo() {
        return this.past.some((step) => step.text !== this.text)
    }

    undo() {
        const past = [...this.past]
        let step = past.pop()
        while (step && step.text === this.text) step = past.pop()
        this.past = past
        if (!step) return false
        Object.assign(this, step)
        this.settle()
        return true
    }
}
