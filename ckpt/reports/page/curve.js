// The bytes' curve: drawn once, before and behind the cursor in other strengths.

let curve = null;

function drawCurve() {
  const canvas = $("bytes"), scale = sized(canvas), { width, height } = canvas;
  const left = 64 * scale, right = width - 4 * scale, floor = height - 34 * scale, top = 18 * scale;
  const seen = (reel.seen || []).reduce((most, high) => Math.max(most, high), 0);
  const own = Math.max(1, reel.high[reel.peak] || 0, reel.budget || 0, seen);
  const most = 1.05 * Math.max(own, Math.min(4 * own, Math.max(0, ...(reel.ghost || []))));
  const x = (p) => left + (p / Math.max(1, reel.count)) * (right - left);
  const y = (n) => floor - (Math.min(n, most) / most) * (floor - top);
  const [grid, fills, lines] = [0, 1, 2].map(() => layer(width, height));
  curve = { x, y, left, right, top, floor, scale, width, height, grid, fills, lines };
  drawGrid(grid.getContext("2d"), most);
  drawFills(fills.getContext("2d"));
  const pen = lines.getContext("2d");
  pen.font = `${11 * scale}px system-ui, sans-serif`;
  pen.lineWidth = scale;
  if (reel.ghost) drawGhost(pen, reel.ghost, most);
  if (reel.seen) drawSeen(pen, seen);
  if (reel.budget) {
    pen.strokeStyle = palette.again;
    pen.setLineDash([6 * scale, 4 * scale]);
    stroke(pen, [[left, y(reel.budget)], [right, y(reel.budget)]]);
    pen.setLineDash([]);
    tag(pen, `budget ${bytes(reel.budget)}`, left + 6 * scale, y(reel.budget) - 5 * scale, "left");
  }
}

function stroke(pen, points) {
  pen.beginPath();
  for (const [a, b] of points) pen.lineTo(a, b);
  pen.stroke();
}

// Text on a ground of its own, so that no line strikes it.
function tag(pen, text, x, y, align) {
  const { scale } = curve, wide = pen.measureText(text).width;
  pen.fillStyle = palette.ground;
  pen.fillRect((align === "right" ? x - wide : x) - 2 * scale, y - 10 * scale, wide + 4 * scale, 13 * scale);
  pen.fillStyle = palette.text;
  pen.textAlign = align;
  pen.fillText(text, x, y);
}

function drawGrid(pen, most) {
  const { y, left, right, scale } = curve;
  pen.font = `${11 * scale}px system-ui, sans-serif`;
  pen.fillStyle = palette.faint;
  pen.strokeStyle = palette.line;
  pen.lineWidth = scale;
  pen.textAlign = "right";
  for (const n of byteTicks(most, 5)) {
    pen.fillText(bytes(n), left - 6 * scale, y(n) + 4 * scale);
    stroke(pen, [[left, y(n)], [right, y(n)]]);
  }
}

// A column a pixel, each the highest instruction of its share; below, what kind of work is done.
function drawFills(pen) {
  const { y, left, right, floor, scale } = curve;
  const columns = Math.max(1, Math.floor(right - left)), each = reel.count / columns;
  let backward = null;
  for (let c = 0; c < columns; c++) {
    const first = Math.floor(c * each), last = Math.max(first, Math.ceil((c + 1) * each) - 1);
    if (first >= reel.count) break;
    let at = first, work = "";
    for (let p = first; p <= last && p < reel.count; p++) {
      if (reel.high[p] > reel.high[at]) at = p;
      const kind = reel.instructions[p] % 3;
      if (reel.again[p]) work = "again";
      else if (work !== "again" && kind !== FREE) work = kind === BACKWARD ? "faint" : "line";
      if (kind === BACKWARD) backward ??= p;
    }
    let below = 0;
    reel.live.forEach((row, k) => {
      pen.fillStyle = palette[KINDS[k]];
      pen.fillRect(left + c, y(below + row[at]), 1, y(below) - y(below + row[at]));
      below += row[at];
    });
    pen.fillStyle = palette.workspace;
    if (reel.high[at] > below) pen.fillRect(left + c, y(reel.high[at]), 1, y(below) - y(reel.high[at]));
    if (!work) continue;
    pen.fillStyle = palette[work];
    pen.fillRect(left + c, floor + 3 * scale, 1, 5 * scale);
  }
  curve.backward = backward;
}

// Store-all beside it: over its own instructions, stretched to this width, as far as it fits.
function drawGhost(pen, ghost, most) {
  const { left, right, y, scale } = curve, peak = Math.max(...ghost);
  const at = (c) => left + (c / Math.max(1, ghost.length - 1)) * (right - left);
  pen.strokeStyle = palette.faint;
  let part = [];
  ghost.forEach((high, c) => {
    if (high <= most) part.push([at(c), y(high)]);
    if (part.length && (high > most || c === ghost.length - 1)) {
      stroke(pen, part);
      part = [];
    }
  });
  const beyond = peak > most ? ", beyond this axis" : "";
  tag(pen, `store-all ${bytes(peak)}${beyond}`, right - 4 * scale, 11 * scale, "right");
}

// What a witness saw while each instruction ran.
function drawSeen(pen, peak) {
  const { x, y, left, scale } = curve;
  pen.strokeStyle = palette.text;
  pen.lineWidth = 1.5 * scale;
  stroke(pen, reel.seen.flatMap((high, p) => [[x(p), y(high)], [x(p + 1), y(high)]]));
  tag(pen, `measured ${bytes(peak)}`, left + 4 * scale, 11 * scale, "left");
}

function drawBytes() {
  const pen = $("bytes").getContext("2d"), { x, width, height, floor, top, scale, left, right } = curve;
  const at = x(position + 1);
  pen.clearRect(0, 0, width, height);
  pen.drawImage(curve.grid, 0, 0);
  pen.globalAlpha = 0.3;
  pen.drawImage(curve.fills, 0, 0);
  pen.globalAlpha = 1;
  pen.drawImage(curve.fills, 0, 0, at, height, 0, 0, at, height);
  pen.drawImage(curve.lines, 0, 0);
  drawSpans(pen);
  pen.fillStyle = palette.text;
  pen.fillRect(at - scale / 2, top, scale, floor + 10 * scale - top);
  pen.font = `${11 * scale}px system-ui, sans-serif`;
  const rear = at > (left + right) / 2;
  tag(pen, bytes(reel.high[position] || 0), at + (rear ? -5 : 5) * scale, floor + 30 * scale, rear ? "right" : "left");
  pen.textAlign = "left";
  pen.fillStyle = palette.faint;
  const turn = curve.backward === null ? Infinity : x(curve.backward);
  const clear = (from, text) => Math.abs(from - at) > pen.measureText(`${text} 999 MiB`).width;
  for (const [from, text] of [[left, "forward"], [turn, "backward"]]) {
    if (from < right && clear(from, text)) pen.fillText(text, from, floor + 30 * scale);
  }
}

// When the chosen value is live.
function drawSpans(pen) {
  const { x, floor, scale } = curve;
  for (const b of chosen === null ? [] : buffersOf(chosen)) {
    pen.fillStyle = palette[KINDS[reel.kinds[b]]];
    const from = x(reel.born[b]);
    pen.fillRect(from, floor + 10 * scale, Math.max(scale, x(reel.died[b]) - from), 5 * scale);
  }
}

function buffersOf(node) {
  if (reel.own?.node !== node) {
    reel.own = { node, buffers: [] };
    reel.whose.forEach((whose, b) => { if (whose === node && reel.kinds[b] < 4) reel.own.buffers.push(b); });
  }
  return reel.own.buffers;
}
