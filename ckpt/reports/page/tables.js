// What an instruction does, what is live after it, and the life of a value, in words.

const SHOWN = 12;

function cell(row, text, name = "") {
  const td = document.createElement("td");
  td.textContent = text;
  td.className = name;
  row.append(td);
  return td;
}

function tell(held) {
  const all = groups(reel, held), live = all.reduce((sum, row) => sum + row.nbytes, 0);
  const beside = (reel.high[position] || 0) - live;
  $("now").textContent = reel.count
    ? `${position + 1} of ${reel.count}: ${reel.words(position)}\n`
      + `live ${bytes(live)}`
      + (beside > 0 ? `, and ${bytes(beside)} only while it runs` : "")
      + (reel.seen ? `; measured ${bytes(reel.seen[position])} in all while it ran` : "")
      + (reel.budget ? `; the budget is ${bytes(reel.budget)}` : "")
    : "an empty schedule";
  $("line").textContent = reel.count ? reel.source(position) : "";
  const rows = all.slice(0, SHOWN).map((row) => [row.nbytes, `${row.count > 1 ? `${row.count} × ` : ""}${row.what}`, row.kind]);
  const rest = all.slice(SHOWN);
  if (rest.length) rows.push([rest.reduce((sum, row) => sum + row.nbytes, 0), `${rest.length} more`, ""]);
  $("live").replaceChildren(...rows.map(([nbytes, what, kind]) => {
    const tr = document.createElement("tr");
    cell(tr, bytes(nbytes), "n");
    cell(tr, `${((100 * nbytes) / (live || 1)).toFixed(0)} %`, "n");
    const td = cell(tr, what);
    if (kind) td.prepend(Object.assign(document.createElement("i"), { style: `background:var(--${kind})` }));
    return tr;
  }));
}

const hint = $("life").firstElementChild;
function tellLife() {
  const box = $("life");
  if (chosen === null) {
    box.replaceChildren(hint.cloneNode(true));
    return;
  }
  const events = reel.life(chosen);
  const head = document.createElement("p"), list = document.createElement("ol");
  head.textContent = `${chosen}: ${reel.text(reel.graph.labels[chosen])}`;
  if (!events.length) head.textContent += " - resident, or never computed here";
  for (const [p, what] of events.slice(0, 200)) {
    const item = document.createElement("li"), go = document.createElement("button");
    go.textContent = `${p + 1}`;
    go.setAttribute("aria-label", `go to instruction ${p + 1}`);
    go.onclick = () => seek(p);
    item.append(`${what} at `, go);
    list.append(item);
  }
  const text = reel.graph.source[reel.text(reel.graph.lines[chosen])];
  const code = Object.assign(document.createElement("code"), { textContent: text || "" });
  box.replaceChildren(head, code, list);
}

function choose(node) {
  chosen = node;
  tellLife();
  show(true);
}
