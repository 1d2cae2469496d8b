// The graph's line: a place for each value that is computed, and a pebble there while it is live.

const MOST_ROWS = 26, EDGE = 4;
let line = null;

function computed(graph) {
  const there = new Uint8Array(graph.labels.length);
  for (const raw of DATA.reels) {
    if (DATA.graphs[raw.graph] !== graph) continue;
    for (const code of raw.instructions) if (code % 3 === COMPUTE) there[Math.floor(code / 3)] = 1;
  }
  return Array.from(there.keys()).filter((node) => there[node]);
}

function layLine() {
  const graph = reel.graph;
  graph.computed ??= computed(graph);
  graph.rows ??= scopeRows(graph, graph.computed, MOST_ROWS) || [];
  const canvas = $("pebbles"), scale = window.devicePixelRatio || 1;
  const width = canvas.clientWidth * scale, label = Math.min(110 * scale, 0.25 * width);
  let rows = graph.rows, left = label, high = 0;
  let size = Math.floor(Math.min(22 * scale, (width - label) / Math.max(...rows.map((row) => row.nodes.length))));
  if (rows.length && size >= 6 * scale) high = Math.max(size, 13 * scale);
  else {
    left = 0;
    const nodes = graph.computed, most = 190 * scale;
    size = Math.max(1, Math.min(22 * scale, Math.floor(Math.sqrt((width * most) / Math.max(1, nodes.length)))));
    while (size > 1 && Math.ceil(nodes.length / Math.floor(width / size)) * size > most) size--;
    const fit = Math.max(1, Math.floor(width / size)), each = (graph.period ??= period(graph, nodes));
    const across = fit - (each < fit && each * 2 <= nodes.length ? fit % each : 0);
    rows = [];
    for (let k = 0; k < nodes.length; k += across) rows.push({ name: "", nodes: nodes.slice(k, k + across) });
    high = size;
  }
  canvas.style.height = `${Math.max(1, rows.length * high) / scale + 2 * EDGE}px`;
  sized(canvas);
  const x = new Float32Array(graph.labels.length).fill(NaN), y = x.slice();
  rows.forEach((row, r) => row.nodes.forEach((node, k) => {
    x[node] = left + (k + 0.5) * size;
    y[node] = EDGE * scale + (r + 0.5) * high;
  }));
  line = { rows, left, size, high, scale, x, y };
  drawGround();
  line.stones = stones();
}

function drawGround() {
  const { rows, left, size, scale, y } = line, { width, height } = $("pebbles");
  line.ground = layer(width, height);
  const pen = line.ground.getContext("2d");
  pen.font = `${11 * scale}px system-ui, sans-serif`;
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  for (const row of rows) {
    const middle = y[row.nodes[0]], dot = Math.max(1, Math.round(size / 5));
    pen.fillStyle = palette.faint;
    if (row.name) pen.fillText(row.name, left - 8 * scale, middle, left - 10 * scale);
    pen.fillStyle = palette.line;
    if (size > 5) pen.fillRect(left + size / 2, middle - scale / 2, (row.nodes.length - 1) * size, scale);
    for (let k = 0; k < row.nodes.length; k++) {
      pen.fillRect(left + (k + 0.5) * size - dot / 2, middle - dot / 2, dot, dot);
    }
  }
}

// A picture of each kind of pebble: `again` has a ring around it.
function stones() {
  const { size, scale } = line, side = Math.max(1, Math.ceil(size));
  const draw = (kind, again) => {
    const stone = layer(side, side), pen = stone.getContext("2d");
    const whole = size > 5 ? (size - scale) / 2 : size / 2, radius = kind > 1 ? whole * 0.5 : whole;
    const disc = (r, ink) => {
      pen.fillStyle = ink;
      if (size < 5) pen.fillRect(side / 2 - r, side / 2 - r, 2 * r, 2 * r);
      else pen.fill(new Path2D(`M${side / 2 - r},${side / 2}a${r},${r} 0 1 0 ${2 * r},0a${r},${r} 0 1 0 ${-2 * r},0Z`));
    };
    if (again) disc(radius, palette.again);
    if (!again || size > 4) disc(again ? radius * 0.68 : radius, palette[KINDS[kind]]);
    return stone;
  };
  return [0, 1, 2, 3].map((kind) => [draw(kind, false), draw(kind, true)]);
}

function drawPebbles(held) {
  const canvas = $("pebbles"), pen = canvas.getContext("2d"), { x, y, size, scale } = line;
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(line.ground, 0, 0);
  for (const inner of [false, true]) {
    for (const b of held) {
      const kind = reel.kinds[b], node = reel.whose[b];
      if (kind > 3 || kind > 1 !== inner || node < 0 || Number.isNaN(x[node])) continue;
      pen.drawImage(line.stones[kind][reel.returned(b) ? 1 : 0], Math.round(x[node] - size / 2), Math.round(y[node] - size / 2));
    }
  }
  const ring = (node, ink, thick, reach) => {
    if (!(x[node] >= 0)) return;
    pen.strokeStyle = ink;
    pen.lineWidth = thick * scale;
    pen.beginPath();
    pen.arc(x[node], y[node], size / 2 + reach * scale, 0, 2 * Math.PI);
    pen.stroke();
  };
  if (!reel.count) return;
  for (const node of reel.reads(position)) ring(node, palette.text, 1, 0);
  ring(reel.node(position), reel.again[position] ? palette.again : palette.text, 2.5, 1);
  if (chosen !== null && x[chosen] >= 0) {
    pen.strokeStyle = palette.text;
    pen.lineWidth = 1.5 * scale;
    pen.strokeRect(x[chosen] - size / 2 - scale, y[chosen] - size / 2 - scale, size + 2 * scale, size + 2 * scale);
  }
}

function nodeUnder(event) {
  const { rows, left, size, high, scale } = line;
  const row = rows[Math.floor(((event.offsetY - EDGE) * scale) / high)];
  return row?.nodes[Math.floor((event.offsetX * scale - left) / size)] ?? null;
}

// The value an arrow key leads to.
function beside(key) {
  const { rows } = line, flat = reel.graph.computed;
  if (chosen === null) return flat[0];
  const step = { ArrowLeft: -1, ArrowRight: 1 }[key];
  if (step) return flat[Math.max(0, Math.min(flat.length - 1, flat.indexOf(chosen) + step))];
  const r = rows.findIndex((row) => row.nodes.includes(chosen));
  const to = rows[r + (key === "ArrowUp" ? -1 : 1)], k = rows[r]?.nodes.indexOf(chosen);
  return to ? to.nodes[Math.min(k, to.nodes.length - 1)] : chosen;
}
