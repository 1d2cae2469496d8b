"use strict";
// Plays schedules: what is live at each instruction, on the bytes' curve and on the graph's line.
(() => {
  const DATA = JSON.parse(document.getElementById("data").textContent);
  const KINDS = ["activations", "captured", "states", "cotangents", "gradients"];
  const COMPUTE = 0, FREE = 1;
  const $ = (id) => document.getElementById(id);

  // -- a schedule -----------------------------------------------------------------------------

  class Reel {
    constructor(raw) {
      Object.assign(this, raw);
      this.graph = DATA.graphs[raw.graph];
      this.count = raw.instructions.length;
      this.born = Int32Array.from(raw.born);
      this.died = Int32Array.from(raw.died);
      this.again = new Uint8Array(this.count);
      const seen = new Uint8Array(this.graph.labels.length);
      this.recomputes = [];
      raw.instructions.forEach((code, p) => {
        const node = Math.floor(code / 3);
        if (code % 3 !== COMPUTE) return;
        if (seen[node]) {
          this.again[p] = 1;
          this.recomputes.push(p);
        }
        seen[node] = 1;
      });
      const counted = this.graph.counts_gradients ? KINDS : KINDS.slice(0, 4);
      this.kinds = counted.map(() => new Float64Array(this.count + 1));
      raw.kinds.forEach((kind, b) => {
        if (kind >= counted.length) return;
        this.kinds[kind][raw.born[b]] += raw.nbytes[b];
        this.kinds[kind][raw.died[b]] -= raw.nbytes[b];
      });
      for (const row of this.kinds) for (let p = 1; p <= this.count; p++) row[p] += row[p - 1];
      this.peak = 0;
      raw.high.forEach((high, p) => { if (high > raw.high[this.peak]) this.peak = p; });
    }

    held(position) {
      const found = [];
      for (let b = 0; b < this.born.length; b++) {
        if (this.born[b] <= position && this.died[b] > position) found.push(b);
      }
      return found;
    }

    words(position) {
      const code = this.instructions[position], index = Math.floor(code / 3);
      if (code % 3 === 2) return `backward ${index}: ${this.text(this.graph.steps[index])}`;
      const verb = code % 3 === FREE ? "free" : this.again[position] ? "compute again" : "compute";
      return `${verb} ${index}: ${this.text(this.graph.labels[index])}`;
    }

    text(number) { return this.graph.texts[number]; }
  }

  function bytes(n) {
    const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let k = 0;
    while (n >= 1024 && k < units.length - 1) { n /= 1024; k++; }
    const digits = k === 0 || n >= 100 ? 0 : n >= 10 ? 1 : 2;
    return `${n.toFixed(digits)} ${units[k]}`;
  }

  // -- what is shown --------------------------------------------------------------------------

  const reels = new Map();
  let reel = null, position = 0, playing = false, chosen = null, lastWords = 0, spent = 0;
  const frames = [];

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  let palette = {};
  function readPalette() {
    const names = [...KINDS, "workspace", "again", "empty", "text", "faint", "line", "ground"];
    palette = Object.fromEntries(names.map((name) => [name, colour(name)]));
  }

  function sized(canvas) {
    const scale = window.devicePixelRatio || 1;
    const width = Math.max(1, Math.round(canvas.clientWidth * scale));
    const height = Math.max(1, Math.round(canvas.clientHeight * scale));
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
    }
    return scale;
  }

  // The bytes' curve, drawn once in full colour; the cursor parts what was from what will be.
  let curve = null, scaleOf = null;
  function drawCurve() {
    const canvas = $("bytes"), scale = sized(canvas);
    const { width, height } = canvas;
    curve = document.createElement("canvas");
    curve.width = width;
    curve.height = height;
    const pen = curve.getContext("2d");
    const left = 64 * scale, floor = height - 18 * scale, top = 16 * scale;
    const own = Math.max(1, reel.high[reel.peak] || 0, reel.budget || 0);
    const most = Math.max(own, Math.min(4 * own, ...[reel.ghost ? Math.max(...reel.ghost) : 0]));
    const x = (p) => left + (p / Math.max(1, reel.count)) * (width - left - 4 * scale);
    const y = (n) => floor - (n / (most * 1.05)) * (floor - top);
    scaleOf = { x, y, left, width, height, floor, scale };
    pen.font = `${11 * scale}px system-ui, sans-serif`;
    pen.fillStyle = palette.faint;
    pen.strokeStyle = palette.line;
    pen.textAlign = "right";
    for (let k = 0; k <= 4; k++) {
      const n = (most * k) / 4;
      pen.fillText(bytes(n), left - 6 * scale, y(n) + 4 * scale);
      pen.beginPath();
      pen.moveTo(left, y(n));
      pen.lineTo(width, y(n));
      pen.stroke();
    }
    const columns = Math.max(1, Math.floor(width - left));
    const each = reel.count / columns;
    const first = (c) => Math.floor(c * each);
    const last = (c) => Math.max(first(c), Math.ceil((c + 1) * each) - 1);
    for (let c = 0; c < columns; c++) {
      let at = first(c);
      for (let p = at; p <= last(c) && p < reel.count; p++) if (reel.high[p] > reel.high[at]) at = p;
      if (at >= reel.count) break;
      let below = 0;
      reel.kinds.forEach((row, k) => {
        pen.fillStyle = palette[KINDS[k]];
        pen.fillRect(left + c, y(below + row[at]), 1, y(below) - y(below + row[at]));
        below += row[at];
      });
      pen.fillStyle = palette.workspace;
      if (reel.high[at] > below) pen.fillRect(left + c, y(reel.high[at]), 1, y(below) - y(reel.high[at]));
    }
    pen.textAlign = "left";
    if (reel.ghost) outline(pen, reel.ghost, most, "store-all");
    if (reel.budget) {
      pen.strokeStyle = pen.fillStyle = palette.again;
      pen.setLineDash([6 * scale, 4 * scale]);
      pen.beginPath();
      pen.moveTo(left, y(reel.budget));
      pen.lineTo(width, y(reel.budget));
      pen.stroke();
      pen.setLineDash([]);
      pen.fillText(`budget ${bytes(reel.budget)}`, left + 6 * scale, y(reel.budget) - 4 * scale);
    }
  }

  // Store-all beside it: over its own instructions, as a share of the axis.
  function outline(pen, ghost, most, name) {
    const { left, width, y, scale } = scaleOf;
    pen.strokeStyle = palette.faint;
    pen.beginPath();
    let above = false;
    ghost.forEach((high, c) => {
      above ||= high > most * 1.05;
      const at = left + (c / Math.max(1, ghost.length - 1)) * (width - left - 4 * scale);
      pen.lineTo(at, Math.max(1, y(Math.min(high, most * 1.05))));
    });
    pen.stroke();
    pen.fillStyle = palette.faint;
    const peak = Math.max(...ghost);
    pen.textAlign = "right";
    pen.fillText(`${name}: ${bytes(peak)}${above ? " (beyond this axis)" : ""}`, width - 6 * scale, 11 * scale);
    pen.textAlign = "left";
  }

  function drawBytes() {
    const pen = $("bytes").getContext("2d");
    const { x, width, height, floor, scale, left } = scaleOf;
    const at = x(position + 1);
    pen.clearRect(0, 0, width, height);
    pen.globalAlpha = 0.3;
    pen.drawImage(curve, 0, 0);
    pen.globalAlpha = 1;
    pen.drawImage(curve, 0, 0, at, height, 0, 0, at, height);
    pen.fillStyle = palette.text;
    pen.fillRect(at, 0, scale, floor);
    pen.font = `${11 * scale}px system-ui, sans-serif`;
    pen.textAlign = at > (left + width) / 2 ? "right" : "left";
    pen.fillText(bytes(reel.high[position] || 0), at + (at > (left + width) / 2 ? -5 : 5) * scale, height - 5 * scale);
  }

  // The graph's line: a cell a node, in the program's order, row by row.
  let cells = null;
  function layCells() {
    const canvas = $("pebbles"), scale = sized(canvas);
    const count = Math.max(1, reel.graph.labels.length);
    const fit = Math.floor(Math.sqrt((canvas.width * canvas.height) / count));
    let size = Math.max(1, Math.min(fit, 22 * scale));
    while (size > 1 && Math.ceil(count / Math.floor(canvas.width / size)) * size > canvas.height) size--;
    const across = Math.max(1, Math.floor(canvas.width / size));
    const ground = document.createElement("canvas");
    ground.width = canvas.width;
    ground.height = canvas.height;
    const pen = ground.getContext("2d");
    const gap = size > 5 ? 1 : 0;
    pen.fillStyle = palette.empty;
    for (let i = 0; i < count; i++) {
      pen.fillRect((i % across) * size, Math.floor(i / across) * size, size - gap, size - gap);
    }
    cells = { size, across, gap, ground, scale, count };
  }

  function drawPebbles(held) {
    const canvas = $("pebbles"), pen = canvas.getContext("2d");
    const { size, across, gap, ground } = cells;
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(ground, 0, 0);
    for (const kind of [1, 0, 2, 3]) {
      pen.fillStyle = palette[KINDS[kind]];
      const inner = kind > 1 ? Math.ceil(size / 2.5) : size - gap;
      for (const b of held) {
        const node = reel.whose[b];
        if (reel.kinds_of[b] !== kind || node < 0) continue;
        const left = (node % across) * size, top = Math.floor(node / across) * size;
        pen.fillRect(left + size - gap - inner, top + size - gap - inner, inner, inner);
      }
    }
    const code = reel.instructions[position];
    let node = Math.floor(code / 3);
    if (code % 3 === 2) node = reel.graph.at[node];
    for (const [i, ink] of [[chosen, palette.text], [node, reel.again[position] ? palette.again : palette.text]]) {
      if (i === null || i === undefined || i < 0) continue;
      pen.strokeStyle = ink;
      pen.lineWidth = 2 * cells.scale;
      pen.strokeRect((i % across) * size - 1, Math.floor(i / across) * size - 1, size + 1, size + 1);
    }
  }

  // -- words ----------------------------------------------------------------------------------

  const OF = { cotangents: "cotangent of ", states: "generator's state of ", gradients: "gradient of ", captured: "captured ", activations: "" };

  function groups(held) {
    const found = new Map();
    for (const b of held) {
      const kind = KINDS[reel.kinds_of[b]];
      if (kind === "gradients" && !reel.graph.counts_gradients) continue;
      const node = reel.whose[b];
      const what = OF[kind] + (node < 0 ? "nobody's" : reel.text(reel.graph.groups[node]));
      const row = found.get(what) || { what, kind, count: 0, nbytes: 0 };
      row.count++;
      row.nbytes += reel.nbytes[b];
      found.set(what, row);
    }
    return [...found.values()].sort((a, b) => b.nbytes - a.nbytes);
  }

  function cell(row, text, name = "") {
    const td = document.createElement("td");
    td.textContent = text;
    td.className = name;
    row.append(td);
    return td;
  }

  function tell(held) {
    const all = groups(held), live = all.reduce((sum, row) => sum + row.nbytes, 0);
    const total = live || 1, beside = (reel.high[position] || 0) - live;
    $("now").textContent = reel.count
      ? `${position + 1} of ${reel.count}: ${reel.words(position)}\n`
        + `live ${bytes(live)}`
        + (beside > 0 ? `, and ${bytes(beside)} only while it runs` : "")
        + (reel.budget ? ` of a budget of ${bytes(reel.budget)}` : "")
      : "an empty schedule";
    const body = $("live");
    body.replaceChildren();
    for (const row of all.slice(0, 12)) {
      const tr = document.createElement("tr");
      cell(tr, bytes(row.nbytes), "n");
      cell(tr, `${((100 * row.nbytes) / total).toFixed(0)} %`, "n");
      cell(tr, `${row.count > 1 ? `${row.count} × ` : ""}${row.what}`);
      body.append(tr);
    }
    if (all.length > 12) {
      const tr = document.createElement("tr");
      cell(tr, bytes(all.slice(12).reduce((sum, row) => sum + row.nbytes, 0)), "n");
      cell(tr, "", "n");
      cell(tr, `${all.length - 12} more`);
      body.append(tr);
    }
  }

  // What is live now, by scope and then by line: each level parts the one above. A box opens to
  // the whole width when it is chosen, and a line shows its text.
  let opened = "";
  function drawMap(held) {
    const root = { path: "", name: "live", nbytes: 0, parts: new Map(), kind: null, line: "" };
    for (const b of held) {
      if (reel.kinds_of[b] > 3 || !reel.nbytes[b]) continue;
      const node = reel.whose[b];
      const line = node < 0 ? "" : reel.text(reel.graph.lines[node]);
      const path = node < 0 ? ["nobody's"] : [
        ...reel.text(reel.graph.scopes[node]).split("/"), line, reel.text(reel.graph.groups[node]),
      ].filter(Boolean);
      let at = root;
      at.nbytes += reel.nbytes[b];
      for (const name of path) {
        if (!at.parts.has(name)) {
          at.parts.set(name, { path: `${at.path}\n${name}`, name, nbytes: 0, parts: new Map(), kind: reel.kinds_of[b], line });
        }
        at = at.parts.get(name);
        at.nbytes += reel.nbytes[b];
      }
    }
    const map = $("map"), focus = document.activeElement?.dataset?.path;
    map.replaceChildren();
    let deepest = 0;
    const lay = (part, left, share, depth, inside) => {
      const whole = inside || opened === part.path, above = opened.startsWith(`${part.path}\n`);
      if (!whole && !above) return;
      const shown = above || opened === part.path ? 1 : share;
      if (shown < 0.003 || depth > 7) return;
      deepest = Math.max(deepest, depth);
      const box = document.createElement("button");
      box.style.cssText = `left:${100 * left}%;width:${100 * shown}%;top:${1.6 * depth}rem;`;
      box.style.background = part.kind === null ? palette.line : part.parts.size ? palette.empty : palette[KINDS[part.kind]];
      if (part.parts.size || part.kind === null) box.style.color = palette.text;
      box.textContent = `${part.name}  ${bytes(part.nbytes)}`;
      const text = part.name === part.line || !part.parts.size ? reel.graph.source[part.line] : "";
      box.title = `${part.name}, ${bytes(part.nbytes)}, ${((100 * part.nbytes) / (root.nbytes || 1)).toFixed(1)} %${text ? `\n${text}` : ""}`;
      box.dataset.path = part.path;
      box.onclick = () => {
        opened = opened === part.path ? part.path.slice(0, Math.max(0, part.path.lastIndexOf("\n"))) : part.path;
        $("source").textContent = box.title.replace("\n", ": ");
        drawMap(held);
      };
      map.append(box);
      let from = left;
      for (const inner of [...part.parts.values()].sort((a, b) => b.nbytes - a.nbytes)) {
        const width = (shown * inner.nbytes) / (part.nbytes || 1);
        lay(inner, whole ? from : 0, width, depth + 1, whole);
        from += width;
      }
    };
    if (opened && !find(root, opened)) opened = "";
    lay(root, 0, 1, 0, false);
    map.style.height = `${1.6 * (deepest + 1) + 0.2}rem`;
    if (focus !== undefined) [...map.children].find((box) => box.dataset.path === focus)?.focus();
  }

  function find(part, path) {
    return part.path === path || [...part.parts.values()].some((inner) => find(inner, path));
  }

  const hint = $("life").firstElementChild;
  function tellLife() {
    const box = $("life");
    if (chosen === null) {
      box.replaceChildren(hint.cloneNode(true));
      return;
    }
    const events = [];
    reel.instructions.forEach((code, p) => {
      if (code % 3 !== 2 && Math.floor(code / 3) === chosen) events.push([p, code % 3 === FREE ? "freed" : reel.again[p] ? "computed again" : "computed"]);
      if (code % 3 === 2 && reel.graph.reads[Math.floor(code / 3)].includes(chosen)) events.push([p, `read by backward ${Math.floor(code / 3)}`]);
    });
    box.replaceChildren();
    const head = document.createElement("p");
    head.textContent = `${chosen}: ${reel.text(reel.graph.labels[chosen])}`;
    const list = document.createElement("ol");
    for (const [p, what] of events.slice(0, 200)) {
      const item = document.createElement("li"), go = document.createElement("button");
      go.textContent = `${p + 1}`;
      go.setAttribute("aria-label", `go to instruction ${p + 1}`);
      go.onclick = () => seek(p);
      item.append(`${what} at `, go);
      list.append(item);
    }
    if (!events.length) head.textContent += " - resident, or never computed here";
    box.append(head, list);
  }

  // -- moving ---------------------------------------------------------------------------------

  function show(force) {
    const start = performance.now();
    const held = reel.count ? reel.held(position) : [];
    drawBytes();
    drawPebbles(held);
    if (force || start - lastWords > 150) {
      tell(held);
      lastWords = start;
      if (!playing) drawMap(held);
    }
    $("position").value = position;
    frames.push(performance.now() - start);
    if (frames.length > 5000) frames.splice(0, 2500);
  }

  function seek(to) {
    position = Math.max(0, Math.min(reel.count - 1, Math.round(to)));
    spent = 0;
    show(true);
    $("bytes").setAttribute("aria-label", `bytes live, at instruction ${position + 1} ${bytes(reel.high[position] || 0)}, peak ${bytes(reel.high[reel.peak] || 0)}`);
  }

  function nextRecompute() {
    const next = reel.recomputes.find((p) => p > position);
    seek(next === undefined ? reel.recomputes[0] ?? position : next);
  }

  let before = 0;
  function turn(now) {
    if (!playing) return;
    const rate = Number($("speed").value) || reel.count / 12;
    spent += ((now - before) / 1000) * rate;
    before = now;
    const whole = Math.floor(spent);
    if (whole) {
      spent -= whole;
      position = Math.min(reel.count - 1, position + whole);
      show(false);
    }
    if (position >= reel.count - 1) play(false);
    else requestAnimationFrame(turn);
  }

  function play(on) {
    playing = on && reel.count > 1;
    if (playing && position >= reel.count - 1) position = 0;
    $("play").textContent = playing ? "Pause" : "Play";
    $("play").setAttribute("aria-pressed", String(playing));
    $("now").setAttribute("aria-live", playing ? "off" : "polite");
    if (playing) {
      before = performance.now();
      requestAnimationFrame(turn);
    } else show(true);
  }

  // -- peak against recompute -------------------------------------------------------------------

  function element(name, attributes, text = "") {
    const made = document.createElementNS($("chart").namespaceURI, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text) made.textContent = text;
    return made;
  }

  // The reels that differ from the chosen one in the last choice alone: what else could be had.
  function drawTrade() {
    const last = DATA.choices.length - 1;
    const all = last < 0 ? [] : DATA.reels.filter((one) => one.at.every((k, n) => n === last || k === reel.at[n]));
    $("trade").hidden = all.length < 2;
    if (all.length < 2) return;
    const width = $("trade").clientWidth || 700, height = 260, left = 56, right = 16, top = 18, floor = height - 40;
    const most = Math.max(...all.map((one) => one.peak_nbytes)) * 1.05;
    const high = Math.max(0.05, ...all.map((one) => one.overhead)) * 1.12;
    const x = (n) => left + (n / most) * (width - left - right), y = (n) => floor - (n / high) * (floor - top);
    const svg = $("chart");
    svg.replaceChildren();
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    for (let k = 0; k <= 4; k++) {
      svg.append(element("line", { x1: left, x2: width - right, y1: y((high * k) / 4), y2: y((high * k) / 4), stroke: "var(--line)" }));
      svg.append(element("text", { class: "axis", x: left - 6, y: y((high * k) / 4) + 4, "text-anchor": "end" }, `${((100 * high * k) / 4).toFixed(high < 0.2 ? 1 : 0)} %`));
      if (k % 2 === 0 || width > 500) svg.append(element("text", { class: "axis", x: x((most * k) / 4), y: floor + 15, "text-anchor": k ? (k === 4 ? "end" : "middle") : "start" }, bytes((most * k) / 4)));
    }
    svg.append(element("text", { class: "axis", x: left, y: 11 }, "recompute, share of a forward"));
    svg.append(element("text", { class: "axis", x: width - right, y: height - 6, "text-anchor": "end" }, "peak"));
    const proved = all.filter((one) => one.bound !== null).sort((a, b) => a.budget - b.budget);
    if (DATA.floor !== null || proved.length) {
      let from = DATA.floor || 0;
      let path = `M${x(0)},${floor}V${top}H${x(from)}`;
      for (const one of proved) {
        path += `V${y(Math.min(one.bound, high))}H${x(Math.max(from, one.budget))}`;
        from = Math.max(from, one.budget);
      }
      svg.append(element("path", { d: `${path}V${floor}Z`, fill: "var(--again)", opacity: 0.18 }));
      svg.append(element("text", { x: x(0) + 5, y: floor - 6 }, "impossible"));
    }
    if (last === 0) {
      const steps = [...all].sort((a, b) => a.peak_nbytes - b.peak_nbytes);
      const line = steps.map((one, k) => (k ? `H${x(one.peak_nbytes)}V${y(one.overhead)}` : `M${x(one.peak_nbytes)},${y(one.overhead)}`)).join("");
      svg.append(element("path", { d: `${line}H${width - right}`, fill: "none", stroke: "var(--states)", "stroke-width": 2 }));
    }
    for (const one of all) {
      const own = one === DATA.reels[reel.raw];
      const point = element("circle", { class: "point", cx: x(one.peak_nbytes), cy: y(one.overhead), r: own ? 7 : 4.5, fill: own ? "var(--again)" : "var(--states)", stroke: "var(--ground)", "stroke-width": 1.5 });
      point.append(element("title", {}, one.verdict));
      point.addEventListener("click", () => { $(`choice${last}`).value = one.at[last]; choose(); });
      svg.append(point);
    }
    // Names, where there is room for them: the chosen one first.
    const taken = [];
    for (const one of [...all].sort((a, b) => (b === DATA.reels[reel.raw]) - (a === DATA.reels[reel.raw]))) {
      const wide = 7 * one.name.length, end = x(one.peak_nbytes) + 10 + wide > width - right;
      const box = [end ? x(one.peak_nbytes) - 10 - wide : x(one.peak_nbytes) + 10, y(one.overhead) - 14, wide, 15];
      if (taken.some((b) => box[0] < b[0] + b[2] && b[0] < box[0] + box[2] && box[1] < b[1] + b[3] && b[1] < box[1] + box[3])) continue;
      taken.push(box);
      svg.append(element("text", { x: end ? x(one.peak_nbytes) - 10 : box[0], y: y(one.overhead) - 4, "text-anchor": end ? "end" : "start" }, one.name));
    }
    svg.setAttribute("aria-label", `peak against recompute: ${all.map((one) => one.verdict).join(" ")}`);
    $("traded").textContent = last === 0
      ? "The best plan found within each budget, as steps; what no schedule can do is shaded. The orange point plays below."
      : `Each ${DATA.choices[last].name} at this ${DATA.choices[0].name}. The orange point plays below.`;
  }

  // -- choosing -------------------------------------------------------------------------------

  function choose() {
    const at = DATA.choices.map((choice, k) => Number($(`choice${k}`).value)).join();
    DATA.choices.forEach((choice, k) => {
      $(`chosen${k}`).textContent = choice.options[Number($(`choice${k}`).value)];
    });
    const raw = DATA.reels.findIndex((one) => one.at.join() === at);
    $("missing").hidden = raw >= 0;
    $("player").hidden = raw < 0;
    if (raw < 0) {
      playing = false;
      $("trade").hidden = true;
      $("missing").textContent = DATA.missing[at] || "there is no plan here";
      $("verdict").textContent = "";
      return;
    }
    const share = reel && reel.count ? position / reel.count : 0;
    if (!reels.has(raw)) reels.set(raw, new Reel(DATA.reels[raw]));
    const before = reel;
    reel = reels.get(raw);
    reel.raw = raw;
    if (before && before.graph !== reel.graph) chosen = null;
    $("verdict").textContent = reel.verdict;
    $("position").max = Math.max(0, reel.count - 1);
    readPalette();
    drawCurve();
    layCells();
    $("again").disabled = !reel.recomputes.length;
    drawTrade();
    seek(share * reel.count);
    tellLife();
    DATA.choices.forEach((choice, k) => {
      $(`choice${k}`).setAttribute("aria-valuetext", `${choice.options[Number($(`choice${k}`).value)]}: ${reel.verdict}`);
    });
  }

  function redraw() {
    readPalette();
    if (!reel || $("player").hidden) return;
    drawCurve();
    layCells();
    drawTrade();
    show(true);
  }

  DATA.reels.forEach((raw) => { raw.kinds_of = raw.kinds; });
  DATA.choices.forEach((choice, k) => { $(`choice${k}`).oninput = choose; });
  $("play").onclick = () => play(!playing);
  $("back").onclick = () => seek(position - 1);
  $("step").onclick = () => seek(position + 1);
  $("peak").onclick = () => seek(reel.peak);
  $("again").onclick = nextRecompute;
  $("position").oninput = (event) => seek(Number(event.target.value));
  $("bytes").onclick = (event) => {
    const { left, width, scale } = scaleOf;
    seek((reel.count * (event.offsetX * scale - left)) / (width - left));
  };
  $("pebbles").onclick = (event) => {
    const { size, across, count, scale } = cells;
    const node = Math.floor((event.offsetY * scale) / size) * across + Math.floor((event.offsetX * scale) / size);
    if (node < 0 || node >= count) return;
    chosen = node;
    tellLife();
    show(true);
  };
  $("pebbles").addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -cells.across, ArrowDown: cells.across };
    if (!moves[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    const from = chosen ?? -Math.min(0, moves[event.key]) - Math.max(0, moves[event.key]);
    chosen = Math.max(0, Math.min(cells.count - 1, from + moves[event.key]));
    tellLife();
    show(true);
  });
  document.addEventListener("keydown", (event) => {
    if (event.target.matches("input, select, button") || event.ctrlKey || event.metaKey || event.altKey) return;
    const far = event.shiftKey ? 10 : 1;
    const keys = {
      " ": () => play(!playing), ArrowLeft: () => seek(position - far), ArrowRight: () => seek(position + far),
      Home: () => seek(0), End: () => seek(reel.count - 1), p: () => seek(reel.peak), r: nextRecompute,
    };
    if (!keys[event.key] || $("player").hidden) return;
    event.preventDefault();
    keys[event.key]();
  });
  window.addEventListener("resize", redraw);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  // What is printed is light, whatever the screen is.
  window.addEventListener("beforeprint", () => { document.documentElement.dataset.print = ""; redraw(); });
  window.addEventListener("afterprint", () => { delete document.documentElement.dataset.print; redraw(); });
  window.ckpt = { seek, play, frames, state: () => ({ position, playing, count: reel.count, peak: reel.peak, held: reel.held(position).length, live: reel.kinds.map((row) => row[position]), recomputes: reel.recomputes.length }) };
  choose();
})();
