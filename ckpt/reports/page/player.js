// Moving through a schedule, choosing another, and the keys for it.

const WORDS = 200, MAP = 600; // milliseconds between two, while it plays: nobody reads faster
let playing = false, untouched = true, spent = 0, before = 0, told = 0, mapped = 0;
const frames = [];

function show(force) {
  const start = performance.now(), held = reel.count ? reel.held(position) : [];
  drawBytes();
  drawPebbles(held);
  if (force || start - told > WORDS) {
    tell(held);
    told = start;
  } else if (start - mapped > MAP) {
    drawMap(held);
    mapped = start;
  }
  if (force) drawMap(held);
  $("position").value = position;
  frames.push(performance.now() - start);
  if (frames.length > 5000) frames.splice(0, 2500);
}

function seek(to) {
  position = Math.max(0, Math.min(reel.count - 1, Math.round(to)));
  spent = 0;
  untouched = false;
  show(true);
  $("bytes").setAttribute("aria-label", `bytes live, at instruction ${position + 1} ${bytes(reel.high[position] || 0)}, peak ${bytes(reel.high[reel.peak] || 0)}`);
}

function nextRecompute() {
  seek(reel.recomputes.find((p) => p > position) ?? reel.recomputes[0] ?? position);
}

function turn(now) {
  if (!playing) return;
  const rate = Number($("speed").value) || reel.count / 12;
  spent += (Math.max(0, now - before) / 1000) * rate; // the first frame may have begun before
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
  if (playing && (untouched || position >= reel.count - 1)) position = 0;
  untouched = false;
  $("play").textContent = playing ? "Pause" : "Play";
  $("play").setAttribute("aria-pressed", String(playing));
  $("now").setAttribute("aria-live", playing ? "off" : "polite");
  if (playing) {
    before = performance.now();
    requestAnimationFrame(turn);
  } else show(true);
}

// Shows the schedule that the page's choices name, at the same share of it; at first, at its peak.
function pick() {
  const values = DATA.choices.map((choice, k) => Number($(`choice${k}`).value)), at = values.join();
  values.forEach((n, k) => { $(`chosen${k}`).textContent = DATA.choices[k].options[n]; });
  const raw = DATA.reels.findIndex((one) => one.at.join() === at);
  $("missing").hidden = raw >= 0;
  $("player").hidden = raw < 0;
  if (raw < 0) {
    playing = false;
    $("trade").hidden = true;
    $("missing").textContent = DATA.missing[at] || "there is no plan here";
    return;
  }
  const share = reel && reel.count ? position / reel.count : 0, earlier = reel?.graph;
  if (!reels.has(raw)) reels.set(raw, new Reel(DATA.reels[raw], DATA.graphs[DATA.reels[raw].graph]));
  reel = reels.get(raw);
  reel.raw = raw;
  if (earlier !== reel.graph) chosen = null;
  $("verdict").textContent = reel.verdict;
  $("position").max = Math.max(0, reel.count - 1);
  $("again").disabled = !reel.recomputes.length;
  draw();
  const fresh = untouched;
  seek(fresh ? reel.peak : share * reel.count);
  untouched = fresh;
  tellLife();
  values.forEach((n, k) => {
    if ($(`choice${k}`).type === "range") $(`choice${k}`).setAttribute("aria-valuetext", `${DATA.choices[k].options[n]}: ${reel.verdict}`);
  });
}

function draw() {
  readPalette();
  drawCurve();
  layLine();
  drawTrade();
}

function redraw() {
  if (!reel || $("player").hidden) return;
  draw();
  show(true);
}

DATA.choices.forEach((choice, k) => { $(`choice${k}`).oninput = pick; });
$("play").onclick = () => play(!playing);
$("back").onclick = () => seek(position - 1);
$("step").onclick = () => seek(position + 1);
$("peak").onclick = () => seek(reel.peak);
$("again").onclick = nextRecompute;
$("position").oninput = (event) => seek(Number(event.target.value));
$("levels").oninput = () => show(true);

function scrub(event) {
  const { left, right, scale } = curve;
  seek((reel.count * (event.offsetX * scale - left)) / (right - left));
}
$("bytes").onpointerdown = (event) => {
  $("bytes").setPointerCapture(event.pointerId);
  scrub(event);
};
$("bytes").onpointermove = (event) => { if (event.buttons) scrub(event); };

$("pebbles").onclick = (event) => choose(nodeUnder(event));
$("pebbles").onpointermove = (event) => {
  const node = nodeUnder(event);
  $("pebbles").title = node === null ? "" : reel.text(reel.graph.labels[node]);
};
$("pebbles").addEventListener("keydown", (event) => {
  if (!/^Arrow/.test(event.key) || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  event.stopPropagation();
  choose(beside(event.key));
});

document.addEventListener("keydown", (event) => {
  const pressed = event.key === " " && event.target.matches("button, summary");
  if (pressed || event.target.matches("input, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  const far = event.shiftKey ? 10 : 1;
  const keys = {
    " ": () => play(!playing), ArrowLeft: () => seek(position - far), ArrowRight: () => seek(position + far),
    Home: () => seek(0), End: () => seek(reel.count - 1), p: () => seek(reel.peak), r: nextRecompute,
  };
  const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act || $("player").hidden) return;
  event.preventDefault();
  act();
});

window.addEventListener("resize", redraw);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
// What is printed is light, whatever the screen is.
window.addEventListener("beforeprint", () => { document.documentElement.dataset.print = ""; redraw(); });
window.addEventListener("afterprint", () => { delete document.documentElement.dataset.print; redraw(); });

window.ckpt = { seek, play, frames, state: () => ({ position, playing, chosen, count: reel.count, peak: reel.peak, held: reel.held(position).length, live: reel.live.map((row) => row[position]), recomputes: reel.recomputes.length }) };
pick();
