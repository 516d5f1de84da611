// Files that a user drops or picks: those of folders too, and their upload into ComfyUI's input folder.

import { api } from "../../../scripts/api.js"

const FOLDER = "subject_photos"
const PICTURES = /\.(png|jpe?g|jfif|jpe|webp|bmp|gif|tiff?|heic|heif|hif|avif)$/i
const MASKS = /^(_?masks?|masklabels)$/i

/** Whether a drag holds files, not text or a node. */
export function holdsFiles(transfer) {
    return [...(transfer?.items ?? [])].some((item) => item.kind === "file") || Boolean(transfer?.files?.length)
}

/**
 * What was dropped, as {files: [{file, within}], left: [names]}. Of a folder: its files, and those of a folder of masks
 * within (`within` is its name). To be called while the drop event is handled; later its items are empty.
 */
export async function dropped(transfer) {
    const items = [...transfer.items].filter((item) => item.kind === "file")
    const entries = items.map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile()).filter(Boolean)
    const found = { files: [], left: [] }
    for (const entry of entries) await collect(entry, found, 0)
    return sorted(found)
}

/** The same of files from a dialog. */
export function picked(files) {
    return sorted({ files: [...files].map((file) => ({ file, within: "" })), left: [] })
}

function sorted({ files, left }) {
    const pictures = files.filter(({ file }) => file.type.startsWith("image/") || PICTURES.test(file.name))
    const others = files.filter((one) => !pictures.includes(one) && !one.file.name.startsWith("."))
    pictures.sort((a, b) => a.file.name.localeCompare(b.file.name, "en", { numeric: true }))
    return { files: pictures, left: [...left, ...others.map(({ file }) => file.name)] }
}

async function collect(entry, found, depth, within = "") {
    if (entry instanceof File) return void found.files.push({ file: entry, within })
    if (entry.isFile) {
        const file = await new Promise((done, fail) => entry.file(done, fail))
        return void found.files.push({ file, within })
    }
    if (depth === 1 && !MASKS.test(entry.name)) return void found.left.push(`${entry.name}/`)
    for (const inner of await entriesOf(entry))
        if (depth === 0 || inner.isFile) await collect(inner, found, depth + 1, depth === 1 ? entry.name : "")
}

/** All entries of a folder; a browser gives them in parts. */
async function entriesOf(folder) {
    const reader = folder.createReader()
    const all = []
    for (;;) {
        const part = await new Promise((done, fail) => reader.readEntries(done, fail))
        if (!part.length) return all
        all.push(...part)
    }
}

/** The address of a file in the input folder. */
export function viewOf(subfolder, filename) {
    return `/view?${new URLSearchParams({ filename, subfolder, type: "input" })}`
}

/** Whether another file of this name is in the folder: one of other content. */
async function taken(folder, { file, within }) {
    const answer = await api.fetchApi(viewOf(join(folder, within), file.name), { cache: "no-store" })
    if (answer.status === 404) return false
    if (!answer.ok) return true
    const [there, here] = await Promise.all([answer.arrayBuffer(), file.arrayBuffer()])
    if (there.byteLength !== here.byteLength) return true
    const [one, other] = [new Uint8Array(there), new Uint8Array(here)]
    return one.some((byte, i) => byte !== other[i])
}

/**
 * The first of subject_photos, subject_photos_2, ... in which no file would meet another of its name: so photos and
 * their masks keep the names that pair them.
 */
async function freeFolder(files) {
    for (let n = 1; ; n++) {
        const folder = n === 1 ? FOLDER : `${FOLDER}_${n}`
        let free = true
        for (const one of files) if (free && (await taken(folder, one))) free = false
        if (free) return folder
    }
}

const join = (...parts) => parts.filter(Boolean).join("/")

/**
 * Upload files one by one, never over another: {names, failed}. names: inside the input folder, as the server gives
 * them; failed: names with reasons. `tell(done)` is called after each.
 */
export async function upload(files, tell) {
    const names = []
    const failed = []
    const folder = await freeFolder(files)
    for (const [i, { file, within }] of files.entries()) {
        const body = new FormData()
        body.append("image", file, file.name)
        body.append("subfolder", join(folder, within))
        body.append("type", "input")
        const answer = await api.fetchApi("/upload/image", { method: "POST", body })
        if (answer.ok) {
            const { name, subfolder } = await answer.json()
            names.push(join(subfolder.replaceAll("\\", "/"), name))
        } else {
            const why = answer.status === 413 ? "too large for the server" : `the server says ${answer.status}`
            failed.push(`${file.name} (${why})`)
        }
        tell(i + 1)
    }
    return { names, failed }
}
