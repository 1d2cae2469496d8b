// What all parts of the page share: the data, the schedule that is shown, and where it stands.

const DATA = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);

const reels = new Map();
let reel = null, position = 0, chosen = null, palette = {};

function readPalette() {
  const style = getComputedStyle(document.documentElement);
  const names = [...KINDS, "workspace", "again", "empty", "text", "faint", "line", "ground"];
  palette = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

// The canvas with a pixel for each of the screen's; how many of those a unit of CSS is.
function sized(canvas) {
  const scale = window.devicePixelRatio || 1;
  const width = Math.max(1, Math.round(canvas.clientWidth * scale));
  const height = Math.max(1, Math.round(canvas.clientHeight * scale));
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  return scale;
}

const layer = (width, height) => Object.assign(document.createElement("canvas"), { width, height });
