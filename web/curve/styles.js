// Styles of the curve. Colours come from ComfyUI's variables; line colours are visible on dark and light backgrounds,
// and lines also differ in dash pattern.

import { addStyle } from "../shared/style.js"

const ID = "dbdpo-curve-style"

const CSS = `
.dbdpo-curve { --line: #2b8fd6; --warn: #c77d00; --stop: #e0551b; box-sizing: border-box; width: 100%; height: 100%;
  min-height: 0; padding: 6px 8px;
  display: flex; flex-direction: column; gap: 4px; border-radius: 6px; overflow: hidden; color: var(--fg-color, #222);
  background: var(--comfy-menu-bg, #fff); font: 14px/1.3 system-ui, sans-serif; user-select: none; }
.dbdpo-curve-words { flex: none; overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.dbdpo-curve[data-alarm="on"] .dbdpo-curve-words { font-weight: 700; border-left: 6px solid var(--stop);
  padding-left: 6px; }
.dbdpo-curve svg { flex: 1; min-height: 0; width: 100%; display: block; cursor: crosshair; }
.dbdpo-curve-empty { justify-content: center; text-align: center; }
.dbdpo-curve-empty .dbdpo-curve-words { white-space: normal; opacity: 0.8; }
.dbdpo-curve-empty svg { display: none; }
.dbdpo-curve text { fill: var(--fg-color, #222); font: 13px system-ui, sans-serif; font-variant-numeric: tabular-nums; }
.dbdpo-curve .dbdpo-curve-now { font-weight: 700; }
.dbdpo-curve .dbdpo-curve-label { font-size: 12px; }
.dbdpo-curve-box { fill: var(--fg-color, #222); fill-opacity: 0.05; }
.dbdpo-curve-raw { fill: none; stroke: var(--line); stroke-width: 1; stroke-opacity: 0.5; }
.dbdpo-curve-mean { fill: none; stroke: var(--line); stroke-width: 2.2; stroke-linejoin: round; }
.dbdpo-curve-dot { fill: var(--line); }
.dbdpo-curve-zero { stroke: var(--fg-color, #222); stroke-opacity: 0.5; stroke-dasharray: 2 4; }
.dbdpo-curve-warning { stroke: var(--warn); stroke-width: 1.8; stroke-dasharray: 9 3 2 3; }
.dbdpo-curve-stop { stroke: var(--stop); stroke-width: 1.8; }
.dbdpo-curve-border { stroke: var(--fg-color, #222); stroke-opacity: 0.4; }
.dbdpo-curve-mark { stroke: var(--fg-color, #222); stroke-opacity: 0.7; }
`

/** Add the style to the page, once. */
export const dress = () => addStyle(ID, CSS)
