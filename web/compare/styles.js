// Styles of the slider. Colours come from ComfyUI's variables; tags have their own background, so that they can be read
// on any image.

import { addStyle } from "../shared/style.js"

const ID = "dbdpo-compare-style"

const CSS = `
.dbdpo-compare { --after: #2b8fd6; box-sizing: border-box; width: 100%; height: 100%; min-height: 0; padding: 8px;
  border-radius: 6px; overflow: hidden;
  display: flex; flex-direction: column; justify-content: center; color: var(--fg-color, #222);
  background: var(--comfy-menu-bg, #fff);
  font: 15px/1.3 system-ui, sans-serif; user-select: none; }
.dbdpo-compare [hidden] { display: none !important; }
.dbdpo-compare-note { text-align: center; opacity: 0.85; }
.dbdpo-compare-body { display: flex; flex-direction: column; gap: 6px; flex: 1; min-height: 0; }
.dbdpo-compare-bar { display: flex; gap: 6px; flex: none; }
.dbdpo-compare select, .dbdpo-compare button { font: inherit; color: var(--input-text, #222);
  background: var(--comfy-input-bg, #eee);
  border: 1px solid var(--border-color, #999); border-radius: 6px; padding: 3px 10px; cursor: pointer; min-width: 0; }
.dbdpo-compare select:first-of-type { flex: 1; text-overflow: ellipsis; }
.dbdpo-compare select:focus-visible, .dbdpo-compare button:focus-visible, .dbdpo-compare-stage:focus-visible {
  outline: 3px solid var(--after); outline-offset: 1px; }
.dbdpo-compare-stage { position: relative; flex: 1; min-height: 0; align-self: center; aspect-ratio: var(--shape, 1);
  max-width: 100%; cursor: ew-resize;
  touch-action: none; overflow: hidden; border-radius: 4px; }
.dbdpo-compare-stage img { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: contain;
  pointer-events: none; }
.dbdpo-compare-stage .dbdpo-few-pixels { image-rendering: pixelated; }
.dbdpo-compare-after { clip-path: inset(0 0 0 var(--share)); }
.dbdpo-compare-line { position: absolute; top: 0; bottom: 0; left: var(--share); width: 3px; margin-left: -1.5px;
  background: #fff;
  box-shadow: 0 0 0 1px #0009; pointer-events: none; }
.dbdpo-compare-line::after { content: ""; position: absolute; top: 50%; left: 50%; width: 22px; height: 22px;
  margin: -11px; border-radius: 50%; background: #fff;
  box-shadow: 0 0 0 1px #0009; }
.dbdpo-compare-tag { position: absolute; top: 6px; padding: 1px 8px; border-radius: 4px; background: #000a;
  color: #fff; pointer-events: none; }
.dbdpo-compare-left { left: 6px; } .dbdpo-compare-right { right: 6px; }
.dbdpo-compare-words { flex: none; text-align: center; font-variant-numeric: tabular-nums; }
`

/** Add the style to the page, once. */
export const dress = () => addStyle(ID, CSS)
