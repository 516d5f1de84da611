// Styles of the panel. Colours come from ComfyUI's variables; the kept round differs by shape and star as well.

import { addStyle } from "../shared/style.js"

const ID = "dbdpo-rounds-style"

const CSS = `
.dbdpo-rounds { --done: #2b8fd6; box-sizing: border-box; width: 100%; height: 100%; min-height: 0; padding: 8px 10px;
  display: flex; flex-direction: column; gap: 6px; border-radius: 6px; overflow: hidden; color: var(--fg-color, #222);
  background: var(--comfy-menu-bg, #fff); font: 14px/1.3 system-ui, sans-serif; text-align: left; user-select: none; }
.dbdpo-rounds [hidden] { display: none !important; }
.dbdpo-rounds[data-state="idle"] { justify-content: center; text-align: center; }
.dbdpo-rounds-line { flex: none; font-weight: 700; overflow-wrap: anywhere; }
.dbdpo-rounds[data-state="idle"] .dbdpo-rounds-line { font-weight: 400; opacity: 0.8; }
.dbdpo-rounds-time { flex: none; font-variant-numeric: tabular-nums; }
.dbdpo-rounds-time:empty, .dbdpo-rounds-estimate:empty, .dbdpo-rounds-said:empty { display: none; }
.dbdpo-rounds-bar { flex: none; height: 10px; border-radius: 5px; overflow: hidden;
  background: color-mix(in srgb, var(--fg-color, #222) 18%, transparent); }
.dbdpo-rounds-fill { height: 100%; width: 0; background: var(--done); }
.dbdpo-rounds-estimate { flex: none; opacity: 0.85; }
.dbdpo-rounds-said { flex: none; max-height: 3.9em; overflow: auto; user-select: text; }
.dbdpo-rounds-buttons { flex: none; display: flex; gap: 8px; }
.dbdpo-rounds button { font: inherit; padding: 4px 12px; border-radius: 6px; cursor: pointer; min-height: 30px;
  color: var(--input-text, #222); background: var(--comfy-input-bg, #eee);
  border: 1px solid var(--border-color, #999); }
.dbdpo-rounds button:focus-visible { outline: 3px solid var(--done); outline-offset: 1px; }
.dbdpo-rounds button:disabled { opacity: 0.6; cursor: default; }
.dbdpo-rounds-seen { flex: 1; min-height: 0; display: grid; grid-template-columns: minmax(0, 45fr) minmax(0, 55fr);
  gap: 10px; }
.dbdpo-rounds-plane { width: 100%; height: 100%; min-height: 0; display: block; }
.dbdpo-rounds-box { fill: var(--fg-color, #222); fill-opacity: 0.05; }
.dbdpo-rounds text { fill: var(--fg-color, #222); font: 12px system-ui, sans-serif; }
.dbdpo-rounds .dbdpo-rounds-number { font-weight: 700; }
.dbdpo-rounds-path { fill: none; stroke: var(--fg-color, #222); stroke-opacity: 0.5; stroke-width: 1.5; }
.dbdpo-rounds-dot { fill: var(--comfy-menu-bg, #fff); stroke: var(--done); stroke-width: 2; }
.dbdpo-rounds-kept { fill: var(--done); }
.dbdpo-rounds-pictures { display: flex; flex-direction: column; gap: 3px; min-height: 0; overflow: hidden; }
.dbdpo-rounds-side { flex: none; font-size: 12px; opacity: 0.85; }
.dbdpo-rounds-row { flex: 1; min-height: 0; display: flex; gap: 3px; }
.dbdpo-rounds-row img { flex: 1; min-width: 0; min-height: 0; max-height: 100%; object-fit: contain;
  object-position: left top; border-radius: 3px; }
.dbdpo-rounds .dbdpo-few-pixels { image-rendering: pixelated; }
`

/** Add the style to the page, once. */
export const dress = () => addStyle(ID, CSS)
