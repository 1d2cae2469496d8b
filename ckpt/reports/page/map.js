// What is live as a flame graph: each level parts the one above. A box opens to the whole width.

const LEVEL = 1.6, NARROW = 26;
let opened = "";

function drawMap(held) {
  const byLine = $("levels").value === "line";
  const root = tree(reel, held, byLine), map = $("map"), wide = map.clientWidth;
  const focus = document.activeElement?.dataset?.path, boxes = [];
  let deepest = 0;
  const lay = (part, left, share, depth, inside) => {
    const whole = inside || opened === part.path, above = opened.startsWith(`${part.path}\n`);
    if (!whole && !above) return;
    const shown = above || opened === part.path ? 1 : share;
    if (shown * wide < 2 || depth > 7) return;
    deepest = Math.max(deepest, depth);
    boxes.push(box(part, root, left, shown, depth, shown * wide));
    let from = left;
    for (const inner of [...part.parts.values()].sort((a, b) => b.nbytes - a.nbytes)) {
      const width = (shown * inner.nbytes) / (part.nbytes || 1);
      lay(inner, whole ? from : 0, width, depth + 1, whole);
      from += width;
    }
  };
  if (opened && !find(root, opened)) opened = "";
  lay(root, 0, 1, 0, false);
  map.replaceChildren(...boxes);
  map.style.height = `${LEVEL * (deepest + 1) + 0.2}rem`;
  if (focus !== undefined) boxes.find((one) => one.dataset.path === focus)?.focus();
}

function box(part, root, left, share, depth, width) {
  const made = document.createElement("button"), text = reel.graph.source[part.line] || "";
  const ink = part.kind === null ? "line" : part.parts.size ? "empty" : KINDS[part.kind];
  made.style.cssText = `left:${100 * left}%;width:${100 * share}%;top:${LEVEL * depth}rem;background:var(--${ink})`;
  if (ink === "line" || ink === "empty") made.style.color = "var(--text)";
  const said = `${part.name}, ${bytes(part.nbytes)}, ${((100 * part.nbytes) / (root.nbytes || 1)).toFixed(1)} %`;
  if (width < NARROW) made.setAttribute("aria-label", said);
  else made.textContent = `${part.name}  ${bytes(part.nbytes)}${text && part.parts.size ? `  ${text}` : ""}`;
  made.title = text ? `${said}\n${text}` : said;
  made.dataset.path = part.path;
  made.onclick = () => {
    opened = opened === part.path ? part.path.slice(0, Math.max(0, part.path.lastIndexOf("\n"))) : part.path;
    $("source").textContent = made.title.replace("\n", ": ");
    drawMap(reel.held(position));
  };
  return made;
}

function find(part, path) {
  return part.path === path || [...part.parts.values()].some((inner) => find(inner, path));
}
