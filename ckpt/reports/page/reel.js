// A schedule that can be played: what is live at each of its instructions, and what they say.

const KINDS = ["activations", "captured", "states", "cotangents", "gradients"];
const COMPUTE = 0, FREE = 1, BACKWARD = 2;

class Reel {
  constructor(raw, graph) {
    Object.assign(this, raw);
    this.graph = graph;
    this.count = raw.instructions.length;
    this.born = Int32Array.from(raw.born);
    this.died = Int32Array.from(raw.died);
    this.again = new Uint8Array(this.count);
    const seen = new Uint8Array(graph.labels.length);
    this.recomputes = [];
    raw.instructions.forEach((code, p) => {
      if (code % 3 !== COMPUTE) return;
      const node = Math.floor(code / 3);
      if (seen[node]) {
        this.again[p] = 1;
        this.recomputes.push(p);
      }
      seen[node] = 1;
    });
    const counted = graph.counts_gradients ? KINDS : KINDS.slice(0, 4);
    this.live = counted.map(() => new Float64Array(this.count + 1));
    raw.kinds.forEach((kind, b) => {
      if (kind >= counted.length) return;
      this.live[kind][raw.born[b]] += raw.nbytes[b];
      this.live[kind][raw.died[b]] -= raw.nbytes[b];
    });
    for (const row of this.live) for (let p = 1; p <= this.count; p++) row[p] += row[p - 1];
    this.peak = raw.high.reduce((best, high, p) => (high > raw.high[best] ? p : best), 0);
  }

  // The buffers that are live after an instruction.
  held(position) {
    const found = [];
    for (let b = 0; b < this.born.length; b++) {
      if (this.born[b] <= position && this.died[b] > position) found.push(b);
    }
    return found;
  }

  // Whether a buffer holds a value that was computed a second time.
  returned(b) { return this.kinds[b] < 2 && this.again[this.born[b]] === 1; }

  words(position) {
    const code = this.instructions[position], index = Math.floor(code / 3);
    if (code % 3 === BACKWARD) return `backward ${index}: ${this.text(this.graph.steps[index])}`;
    const verb = code % 3 === FREE ? "free" : this.again[position] ? "compute again" : "compute";
    return `${verb} ${index}: ${this.text(this.graph.labels[index])}`;
  }

  // The node that an instruction is about; -1 for a backward that is no value's.
  node(position) {
    const code = this.instructions[position], index = Math.floor(code / 3);
    return code % 3 === BACKWARD ? this.graph.at[index] : index;
  }

  reads(position) {
    const code = this.instructions[position];
    return code % 3 === BACKWARD ? this.graph.reads[Math.floor(code / 3)] : [];
  }

  // The text of the line of the program that an instruction comes from, where it is known.
  source(position) {
    const code = this.instructions[position], index = Math.floor(code / 3);
    const lines = code % 3 === BACKWARD ? this.graph.step_lines : this.graph.lines;
    return this.graph.source[this.text(lines[index])] || "";
  }

  // When a value is computed, read and freed: [instruction, what happens].
  life(node) {
    const found = [];
    this.instructions.forEach((code, p) => {
      const index = Math.floor(code / 3);
      if (code % 3 === BACKWARD) {
        if (this.graph.reads[index].includes(node)) found.push([p, `read by backward ${index}`]);
      } else if (index === node) {
        found.push([p, code % 3 === FREE ? "freed" : this.again[p] ? "computed again" : "computed"]);
      }
    });
    return found;
  }

  text(number) { return this.graph.texts[number]; }
}

const GROUP = { captured: "captured ", states: "generator's state of ", cotangents: "cotangent of ", gradients: "gradient of " };

function group(reel, b) {
  const node = reel.whose[b];
  return (GROUP[KINDS[reel.kinds[b]]] || "") + (node < 0 ? "nobody's" : reel.text(reel.graph.groups[node]));
}

// Buffers that are alike, largest first.
function groups(reel, held) {
  const found = new Map();
  for (const b of held) {
    if (reel.kinds[b] >= reel.live.length) continue;
    const kind = KINDS[reel.kinds[b]], what = group(reel, b);
    const row = found.get(what) || { what, kind, count: 0, nbytes: 0 };
    row.count++;
    row.nbytes += reel.nbytes[b];
    found.set(what, row);
  }
  return [...found.values()].sort((a, b) => b.nbytes - a.nbytes);
}

// What is live, level by level: scopes, lines and values; or lines, over all scopes, and values.
function tree(reel, held, byLine) {
  const part = (path, name) => ({ path, name, nbytes: 0, parts: new Map(), kind: null, line: "" });
  const root = part("", "live");
  for (const b of held) {
    if (reel.kinds[b] >= 4 || !reel.nbytes[b]) continue;
    const node = reel.whose[b];
    const line = node < 0 ? "" : reel.text(reel.graph.lines[node]);
    const scopes = node < 0 || byLine ? [] : reel.text(reel.graph.scopes[node]).split("/");
    const names = [...scopes, line, group(reel, b)].filter(Boolean);
    let at = root;
    at.nbytes += reel.nbytes[b];
    for (const name of names) {
      if (!at.parts.has(name)) at.parts.set(name, part(`${at.path}\n${name}`, name));
      at = at.parts.get(name);
      at.nbytes += reel.nbytes[b];
      at.kind = reel.kinds[b];
      at.line = name === line || at.parts.size === 0 ? line : "";
    }
  }
  return root;
}

// The nodes of the graph's line, row by row: a row a scope where scopes part it. Null where they
// don't: then a row holds what fits.
function scopeRows(graph, nodes, most) {
  for (const depth of [3, 2, 1]) {
    const named = graph.texts.map((text) => text.split("/").slice(0, depth).join("/"));
    const rows = [];
    for (const node of nodes) {
      const name = named[graph.scopes[node]];
      if (rows.at(-1)?.name !== name) rows.push({ name, nodes: [] });
      rows.at(-1).nodes.push(node);
      if (rows.length > most) break;
    }
    if (rows.length > 1 && rows.length <= most) return rows;
  }
  return null;
}

// How many nodes lie from one iteration of the program's loop to the next, by their lines; 1 where
// nothing repeats.
function period(graph, nodes) {
  const starts = new Map(), gaps = new Map();
  nodes.forEach((node, k) => {
    const line = graph.lines[node];
    if (k && graph.lines[nodes[k - 1]] === line) return;
    if (starts.has(line)) {
      const gap = k - starts.get(line);
      gaps.set(gap, (gaps.get(gap) || 0) + gap);
    }
    starts.set(line, k);
  });
  const [gap, covered] = [...gaps].reduce((best, one) => (one[1] > best[1] ? one : best), [1, 0]);
  return covered > nodes.length / 2 ? gap : 1;
}

// -- figures as people write them, as on the terminal ------------------------------------------

function threeDigits(n) {
  const text = n.toFixed(n >= 100 ? 0 : n >= 10 ? 1 : 2);
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

function bytes(n) {
  for (const [power, unit] of [[4, "TiB"], [3, "GiB"], [2, "MiB"], [1, "KiB"]]) {
    if (n >= 1024 ** power) return `${threeDigits(n / 1024 ** power)} ${unit}`;
  }
  return `${n.toFixed(0)} B`;
}

// Round numbers from 0 to `most`, at most `count` steps of them.
function ticks(most, count, unit = 1) {
  const wanted = Math.max(most / count / unit, 1e-9), tens = 10 ** Math.floor(Math.log10(wanted));
  const step = unit * tens * [1, 2, 5, 10].find((k) => k * tens >= wanted * (1 - 1e-9));
  return Array.from({ length: Math.floor(most / step + 1e-9) + 1 }, (_, k) => k * step);
}

function byteTicks(most, count) {
  const wanted = most / count, power = [4, 3, 2, 1].find((k) => wanted >= 0.4 * 1024 ** k) || 0;
  return ticks(most, count, 1024 ** power);
}
