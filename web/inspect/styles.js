// Styles of the inspector. Colours come from ComfyUI's variables, so that every theme works. Role colours are those of
// Okabe and Ito (safe for colour-blind users), mixed with the text colour for contrast on light and dark; shape, line
// or text always carries the same information. Sizes are readable at zoom 0.5.

import { addStyle } from "../shared/style.js"

const ID = "dbdpo-inspect-style"

const CSS = `
.dbdpo-inspect { --win: color-mix(in srgb, #0072b2 65%, var(--fg-color, #222));
  --lose: color-mix(in srgb, #d55e00 65%, var(--fg-color, #222));
  --both: color-mix(in srgb, #aa4499 65%, var(--fg-color, #222));
  --wedge: color-mix(in srgb, #e69f00 65%, var(--fg-color, #222)); box-sizing: border-box; width: 100%; height: 100%;
  padding: 10px; overflow: auto; container-type: inline-size; outline: none; border-radius: 6px;
  color: var(--fg-color, #222);
  background: var(--comfy-menu-bg, #fff); border: 2px solid transparent; font: 20px/1.3 system-ui, sans-serif;
  text-align: left; cursor: default; user-select: none; }
.dbdpo-inspect:focus-visible, .dbdpo-inspect:focus { border-color: var(--win); }
.dbdpo-inspect [hidden] { display: none !important; }
.dbdpo-empty { padding: 40px; text-align: center; }
.dbdpo-body { display: flex; flex-direction: column; gap: 8px; height: 100%; }
.dbdpo-bar { display: flex; align-items: center; gap: 10px; flex: none; }
.dbdpo-inspect button, .dbdpo-inspect select { font: inherit; padding: 4px 14px; border-radius: 6px; cursor: pointer;
  min-height: 42px;
  color: var(--input-text, #222); background: var(--comfy-input-bg, #eee);
  border: 2px solid var(--border-color, #999); }
.dbdpo-inspect button:focus-visible, .dbdpo-inspect select:focus-visible { outline: 3px solid var(--win);
  outline-offset: 1px; }
.dbdpo-inspect button:disabled { opacity: 0.45; cursor: default; }
.dbdpo-inspect button[aria-pressed="true"] { border-color: var(--fg-color, #222);
  box-shadow: inset 0 -6px 0 var(--win); font-weight: 700; }
.dbdpo-inspect button.dbdpo-do-swap[aria-pressed="true"] { box-shadow: inset 0 -6px 0 var(--wedge); }
.dbdpo-inspect button.dbdpo-do-reject[aria-pressed="true"] { box-shadow: inset 0 -6px 0 var(--lose); }
.dbdpo-bar select:first-child { max-width: 300px; text-overflow: ellipsis; }
.dbdpo-count { flex: 1; min-width: 0; }
.dbdpo-main { display: grid; grid-template-columns: minmax(0, 46fr) minmax(0, 54fr); gap: 14px; flex: 1;
  min-height: 0; }
.dbdpo-left, .dbdpo-compare { display: flex; flex-direction: column; gap: 6px; min-height: 0; min-width: 0; }
.dbdpo-cloud { position: relative; flex: 1; min-height: 0; }
.dbdpo-cloud svg { position: absolute; inset: 0; width: 100%; height: 100%; cursor: crosshair; touch-action: none; }
.dbdpo-legend { display: flex; flex-wrap: wrap; gap: 2px 18px; justify-content: center; flex: none; }
.dbdpo-legend i { font-style: normal; }
.dbdpo-sign-winner { color: var(--win); } .dbdpo-sign-loser { color: var(--lose); } .dbdpo-sign-both {
  color: var(--both); }
.dbdpo-sign-window, .dbdpo-sign-way, .dbdpo-sign-level { color: var(--wedge); } .dbdpo-sign-none { opacity: 0.7; }
.dbdpo-grid { stroke: var(--fg-color, #222); stroke-width: 1; opacity: 0.13; fill: none; }
.dbdpo-ticks text, .dbdpo-axis { fill: var(--fg-color, #222); font: 21px system-ui, sans-serif; }
.dbdpo-axis { text-anchor: middle; }
.dbdpo-wedge { fill: var(--wedge); fill-opacity: 0.18; stroke: var(--wedge); stroke-width: 1.5; stroke-dasharray: 7 5; }
.dbdpo-way { fill: var(--wedge); stroke: var(--comfy-menu-bg, #fff); stroke-width: 1; }
.dbdpo-level { fill: none; stroke: var(--wedge); stroke-width: 1.8; stroke-dasharray: 9 6; }
.dbdpo-point { stroke: var(--comfy-menu-bg, #fff); stroke-width: 1; }
.dbdpo-none { fill: var(--fg-color, #222); fill-opacity: 0.5; } .dbdpo-winner { fill: var(--win); }
.dbdpo-loser { fill: var(--lose); } .dbdpo-both { fill: var(--both); }
.dbdpo-arrow { fill: none; stroke: var(--fg-color, #222); stroke-width: 1.6; }
.dbdpo-arrow.dbdpo-keep { stroke: var(--win); stroke-width: 2.6; }
.dbdpo-arrow.dbdpo-swap { stroke: var(--wedge); stroke-width: 3; stroke-dasharray: 16 6; }
.dbdpo-arrow.dbdpo-reject { stroke: var(--lose); stroke-width: 2.4; stroke-dasharray: 2 6; }
.dbdpo-thumbs { fill: none; stroke: var(--fg-color, #222); stroke-width: 3.4; }
.dbdpo-chosen { fill: none; stroke: var(--fg-color, #222); stroke-width: 4; }
.dbdpo-hover { fill: none; stroke: var(--fg-color, #222); stroke-width: 2.5; }
.dbdpo-tip { position: absolute; z-index: 2; display: flex; gap: 10px; box-sizing: border-box; padding: 10px;
  border-radius: 8px; pointer-events: none;
  background: var(--comfy-input-bg, #eee); border: 2px solid var(--border-color, #999); font-size: 19px; }
.dbdpo-tip img { width: 150px; height: 150px; object-fit: contain; flex: none; }
.dbdpo-tip-prompt { font-weight: 600; margin-bottom: 4px; max-height: 5.2em; overflow: hidden;
  overflow-wrap: anywhere; }
.dbdpo-where { flex: none; }
.dbdpo-prompt { font-size: 22px; font-weight: 600; flex: none; height: 2.6em; overflow: hidden;
  overflow-wrap: anywhere; }
.dbdpo-figures { display: flex; gap: 12px; flex: 1; min-height: 0; }
.dbdpo-figures figure { margin: 0; flex: 1; min-width: 0; display: flex; flex-direction: column; gap: 4px;
  padding: 6px; border-radius: 8px;
  border: 3px solid var(--border-color, #999); }
.dbdpo-figures figure[data-role="winner"] { border-color: var(--win); }
.dbdpo-figures figure[data-role="loser"] { border: 3px dashed var(--lose); }
.dbdpo-figures figure[data-role="rejected"] { border-style: dotted; }
  .dbdpo-figures figure[data-role="rejected"] img { opacity: 0.5; }
.dbdpo-role { font-weight: 700; text-align: center; }
.dbdpo-figures figure[data-role="winner"] .dbdpo-role { color: var(--win); }
.dbdpo-figures figure[data-role="loser"] .dbdpo-role { color: var(--lose); }
.dbdpo-figures img { flex: 1; min-height: 0; width: 100%; object-fit: contain; }
.dbdpo-numbers { text-align: center; overflow: hidden; text-overflow: ellipsis; white-space: pre-wrap; }
.dbdpo-thumbs-row { display: flex; gap: 6px; justify-content: center; flex-wrap: wrap; }
.dbdpo-photos { display: flex; gap: 8px; flex: none; height: 110px; align-items: center; overflow: hidden; }
.dbdpo-photos img { height: 100%; min-width: 0; object-fit: contain; }
.dbdpo-few-pixels { image-rendering: pixelated; }
.dbdpo-actions { justify-content: center; flex-wrap: wrap; }
.dbdpo-note { flex: none; min-height: 1.3em; font-weight: 600; text-align: center; }
.dbdpo-agreement { flex: none; } .dbdpo-agreement summary { cursor: pointer; }
.dbdpo-body:has(.dbdpo-agreement[open]) { height: auto; }
.dbdpo-body:has(.dbdpo-agreement[open]) .dbdpo-main { flex: none; height: 560px; }
.dbdpo-hint { flex: none; text-align: center; font-size: 18px; opacity: 0.85; }
.dbdpo-rate { box-sizing: border-box; width: 100vw; height: 100vh; max-width: none; max-height: none; margin: 0;
  padding: 12px 16px; border: 0; flex-direction: column; gap: 8px; font: 16px/1.3 system-ui, sans-serif;
  color: var(--fg-color, #222); background: var(--comfy-menu-bg, #fff); }
.dbdpo-rate[open] { display: flex; }
.dbdpo-rate [hidden] { display: none !important; }
.dbdpo-rate-head, .dbdpo-rate-buttons { display: flex; align-items: center; gap: 12px; flex: none; }
.dbdpo-rate-buttons { justify-content: center; flex-wrap: wrap; }
.dbdpo-rate-where { flex: 1; min-width: 0; }
.dbdpo-rate-photos { display: flex; gap: 6px; height: 72px; } .dbdpo-rate-photos img { height: 100%; }
.dbdpo-rate-prompt { flex: none; font-size: 20px; font-weight: 600; text-align: center; overflow-wrap: anywhere;
  min-height: 1.3em; max-height: 2.6em; overflow: auto; }
.dbdpo-rate-pictures { display: flex; gap: 16px; flex: 1; min-height: 0; align-items: center; justify-content: center; }
.dbdpo-rate-pictures img { flex: 1; min-width: 0; height: 100%; object-fit: contain; cursor: pointer; }
.dbdpo-rate-done { font-size: 22px; text-align: center; }
.dbdpo-rate button { font: inherit; padding: 6px 16px; min-height: 40px; border-radius: 6px; cursor: pointer;
  color: var(--input-text, #222); background: var(--comfy-input-bg, #eee);
  border: 2px solid var(--border-color, #999); }
.dbdpo-rate button:disabled { opacity: 0.45; cursor: default; }
.dbdpo-rate button:focus-visible { outline: 3px solid #0072b2; outline-offset: 1px; }
.dbdpo-rate-hint { flex: none; text-align: center; opacity: 0.85; }
.dbdpo-rate-keys { position: absolute; width: 1px; height: 1px; padding: 0; border: 0; opacity: 0; }
@container (max-width: 760px) {
  .dbdpo-main { grid-template-columns: minmax(0, 1fr); grid-auto-rows: 520px; flex: none; } .dbdpo-body {
  height: auto; } .dbdpo-bar { flex-wrap: wrap; }
}
`

/** Add the style to the page, once. */
export const dress = () => addStyle(ID, CSS)
