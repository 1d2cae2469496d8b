// Peak against recompute: the reels that differ from the chosen one in the last choice alone.

function element(name, attributes, text = "") {
  const made = document.createElementNS($("chart").namespaceURI, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
}

// Memory up, recompute right, as in every figure.
function drawTrade() {
  const last = DATA.choices.length - 1, own = DATA.reels[reel.raw];
  const all = last < 0 ? [] : DATA.reels.filter((one) => one.at.every((k, n) => n === last || k === reel.at[n]));
  $("trade").hidden = all.length < 2;
  if (all.length < 2) return;
  const width = $("trade").clientWidth || 700, height = 300;
  const left = 64, right = width - 16, top = 24, floor = height - 40;
  const most = Math.max(...all.map((one) => one.peak_nbytes)) * 1.08;
  const high = Math.max(0.05, ...all.map((one) => one.overhead)) * 1.1;
  const x = (share) => left + (Math.min(share, high) / high) * (right - left);
  const y = (n) => floor - (Math.min(n, most) / most) * (floor - top);
  const svg = $("chart");
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("aria-label", `peak against recompute: ${all.map((one) => one.verdict).join(" ")}`);
  for (const n of byteTicks(most, 6)) {
    svg.append(element("line", { x1: left, x2: right, y1: y(n), y2: y(n), stroke: "var(--line)" }));
    svg.append(element("text", { class: "axis", x: left - 6, y: y(n) + 4, "text-anchor": "end" }, bytes(n)));
  }
  for (const share of ticks(high, width > 500 ? 10 : 5)) {
    svg.append(element("text", { class: "axis", x: x(share), y: floor + 16, "text-anchor": "middle" }, `${threeDigits(100 * share)} %`));
  }
  svg.append(element("text", { class: "axis", x: left, y: 12 }, "peak"));
  svg.append(element("text", { class: "axis", x: right, y: height - 6, "text-anchor": "end" }, "recompute, share of a forward"));
  const proved = all.filter((one) => one.bound !== null).sort((a, b) => a.limit - b.limit);
  if (DATA.floor !== null || proved.length) {
    const edge = proved.map((one) => `H${x(one.bound)}V${y(one.limit)}`).join("");
    svg.append(element("path", { d: `M${left},${floor}H${right}V${y(DATA.floor || 0)}${edge}H${left}Z`, fill: "var(--again)", opacity: 0.18 }));
    svg.append(element("text", { x: left + 6, y: floor - 6 }, "impossible"));
  }
  const best = all.filter((one) => all.every((other) => other === one || other.peak_nbytes > one.peak_nbytes || other.overhead > one.overhead
    || (other.peak_nbytes === one.peak_nbytes && other.overhead === one.overhead)));
  const steps = best.sort((a, b) => a.overhead - b.overhead).map((one, k) => (k ? `H${x(one.overhead)}V${y(one.peak_nbytes)}` : `M${x(one.overhead)},${y(one.peak_nbytes)}`));
  svg.append(element("path", { d: `${steps.join("")}H${right}`, fill: "none", stroke: "var(--states)", "stroke-width": 2 }));
  for (const one of all) {
    const point = element("circle", { class: "point", cx: x(one.overhead), cy: y(one.peak_nbytes), r: one === own ? 7 : 4.5, fill: `var(--${one === own ? "again" : "states"})`, stroke: "var(--ground)", "stroke-width": 1.5 });
    point.append(element("title", {}, one.verdict));
    point.addEventListener("click", () => { $(`choice${last}`).value = one.at[last]; pick(); });
    svg.append(point);
  }
  nameFree(svg, [own, ...all.filter((one) => one !== own)].map((one) => [x(one.overhead), y(one.peak_nbytes), one.name]), { left, right, floor });
  const named = last === 0 ? "The best plan found within each budget" : `Each ${DATA.choices[last].name} at this ${DATA.choices[0].name}`;
  $("traded").textContent = `${named}; the best of them as steps${proved.length ? ", what no schedule can do shaded" : ""}. The orange point plays below.`;
}

// Names where there is room for them, the first before the others.
function nameFree(svg, points, { left, right, floor }) {
  const taken = points.map(([px, py]) => [px - 6, py - 6, 12, 12]);
  const apart = (a, b) => a[0] >= b[0] + b[2] || b[0] >= a[0] + a[2] || a[1] >= b[1] + b[3] || b[1] >= a[1] + a[3];
  for (const [px, py, name] of points) {
    const wide = 7 * name.length;
    const found = [[px + 9, py - 19], [px + 9, py + 5], [px - 9 - wide, py + 5], [px - 9 - wide, py - 19]]
      .map(([a, b]) => [a, b, wide, 15])
      .find((box) => box[0] > left && box[0] + wide < right && box[1] + 15 < floor && taken.every((one) => apart(box, one)));
    if (!found) continue;
    taken.push(found);
    svg.append(element("text", { x: found[0], y: found[1] + 12 }, name));
  }
}
