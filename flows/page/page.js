// The page of the fleet. Asset ids, texts and rejected bytes come from outside: they are only ever set as text.
"use strict";

const EVERY_MS = 5000;
const STATES = {
  failing: "Failing", degraded: "Degraded", stopped: "Stopped", silent: "Silent",
  maintenance: "In maintenance", warming: "Learning", ok: "OK",
};
const STATE_HELP = {
  failing: "a breakdown is likely: act now", degraded: "wears: plan a visit", stopped: "out of service now",
  silent: "sends no data", maintenance: "somebody is working on it",
  warming: "not enough data yet to say what is usual", ok: "as usual",
};
// Each state has a shape of its own, so that colour is never needed.
const SHAPES = {
  failing: "M8 1L15.5 15H.5Z", degraded: "M8 .8L15.2 8L8 15.2L.8 8Z", stopped: "M1.5 1.5H14.5V14.5H1.5Z",
  silent: "M1.5 6H14.5V10H1.5Z", maintenance: "M6 1H10V6H15V10H10V15H6V10H1V6H6Z",
  warming: "M8 1A7 7 0 1 0 8 15A7 7 0 1 0 8 1ZM8 5A3 3 0 1 1 8 11A3 3 0 1 1 8 5Z",
  ok: "M8 1A7 7 0 1 0 8 15A7 7 0 1 0 8 1Z", all: "M2 4H14M2 8H14M2 12H14",
};
const RUNGS = {page: "Page sent", ticket: "Ticket open"};

const $ = (id) => document.getElementById(id);
const asked = {search: "", state: "", class: "", sort: "risk", page: 1};
const rows = new Map();       // asset id -> its row, its detail row, and what they show
const open = new Set();       // asset ids whose details are shown
let paused = false, timer = 0, round = 0, answeredAt = null;

// ---- elements -------------------------------------------------------------------------------------------------------

function el(name, className, ...children) {
  const node = document.createElement(name);
  if (className) node.className = className;
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

function svg(name, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

const symbol = (state) =>
  svg("svg", {class: `symbol ${state}`, viewBox: "0 0 16 16", "aria-hidden": "true"}, svg("path", {d: SHAPES[state]}));

function bar(ratio, high) {
  const fill = el("i", high ? "high" : "");
  fill.style.width = `${Math.round(100 * ratio)}%`;
  const node = el("span", "bar", fill);
  node.setAttribute("aria-hidden", "true");
  return node;
}

// ---- words ----------------------------------------------------------------------------------------------------------

const whole = (n) => n.toLocaleString("en-GB");
const plural = (n, word) => `${whole(n)} ${word}${n === 1 ? "" : "s"}`;

function horizonWords(text) {
  const match = /^([\d.]+)(s|min|h|d)$/.exec(text);
  return match ? `${match[1]} ${match[2] === "d" ? (match[1] === "1" ? "day" : "days") : match[2]}` : text;
}

function percent(p) {
  if (p < 0.005) return "<1 %";
  if (p > 0.995) return ">99 %";
  return `${Math.round(100 * p)} %`;
}

const UNITS = [["second", 1, 120], ["minute", 60, 7200], ["hour", 3600, 172800], ["day", 86400, 5184000], ["month", 2629800, Infinity]];
const unitOf = (s) => UNITS.find(([, , below]) => s < below);

// "2 to 5 days", "5 hours to 3 days", "about 4 days", "more than 6 months"; null where it cannot be known.
function lead([low, , high]) {
  if (low === null && high === null) return null;
  if (high === null) return `more than ${one(low)}`;
  const [word, seconds] = unitOf(high);
  if (low === null) return `up to ${one(high)}`;
  if (low >= 365 * 86400) return "more than a year";
  const from = Math.round(low / seconds), to = Math.max(1, Math.round(high / seconds));
  if (from === to) return `about ${plural(to, word)}`;
  if (from >= 1) return `${whole(from)} to ${plural(to, word)}`;
  return low < 60 ? `up to ${plural(to, word)}` : `${one(low)} to ${plural(to, word)}`;
}

function one(s) {
  const [word, seconds] = unitOf(s);
  return plural(Math.max(1, Math.round(s / seconds)), word);
}

function number(value, unit) {
  if (value === null) return "unknown";
  const size = Math.abs(value);
  const text = value !== 0 && (size < 0.001 || size >= 1e6) ? value.toExponential(1)
    : value.toLocaleString("en-GB", {maximumSignificantDigits: 3, useGrouping: true});
  return (unit ? `${text} ${unit}` : text).replace("-", "−");
}

function usual(s) {
  if (s.lower === null || s.upper === null) return "usual range not known yet";
  return `usual ${number(s.lower, "")} to ${number(s.upper, s.value === null ? s.unit : "")}`;
}

const isOut = (s) => s.value !== null && ((s.upper !== null && s.value > s.upper) || (s.lower !== null && s.value < s.lower));

const when = (us) => new Date(us / 1000).toLocaleString("en-GB",
  {day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit"});

// ---- charts ---------------------------------------------------------------------------------------------------------

// A line over its shaded usual range; `level` draws a threshold instead of a range, `bounds` fixes the height.
function chart(trace, s, width, height, label, {level = null, bounds = null} = {}) {
  const points = trace ? trace.ago_s.map((ago, n) => [-ago, trace.values[n]]).filter(([, v]) => v !== null) : [];
  if (!points.length && s.value !== null) points.push([0, s.value]);
  const node = svg("svg", {class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label});
  const inside = points.map(([, v]) => v);
  for (const edge of [s.lower, s.upper]) if (edge !== null && edge !== undefined) inside.push(edge);
  let [low, high] = bounds || [Math.min(...inside), Math.max(...inside)];
  if (!Number.isFinite(low)) [low, high] = [0, 1];
  const room = bounds ? 0 : (high - low) * 0.12 || Math.abs(high) * 0.05 || 1;
  low -= room; high += room;
  const start = trace && trace.ago_s.length > 1 ? -trace.ago_s[0] : -1;
  const x = (t) => 3 + (width - 8) * (t - start) / -start;
  const y = (v) => 2 + (height - 4) * (high - v) / (high - low);
  const f = (v) => v.toFixed(1);
  if (s.lower !== null && s.upper !== null && s.lower !== undefined && s.upper !== undefined) {
    node.append(svg("rect", {class: "band", x: 0, width, y: f(y(s.upper)), height: f(Math.max(1, y(s.lower) - y(s.upper)))}));
  }
  node.append(svg("rect", {class: "frame", x: .5, y: .5, width: width - 1, height: height - 1}));
  if (level !== null) node.append(svg("line", {class: "level", x1: 0, x2: width, y1: f(y(level)), y2: f(y(level))}));
  if (points.length) {
    node.append(svg("polyline", {class: "trace", points: points.map(([t, v]) => `${f(x(t))},${f(y(v))}`).join(" ")}));
    const [t, v] = points[points.length - 1];
    const out = level !== null ? v >= level : s.upper !== null && s.lower !== null && (v > s.upper || v < s.lower);
    node.append(svg("circle", {class: out ? "now out" : "now", cx: f(x(t)), cy: f(y(v)), r: 3}));
  }
  return node;
}

function reading(s) {
  const node = el("span", isOut(s) ? "reading out" : "reading", number(s.value, s.unit));
  return el("div", "", node, el("span", "small", ` ${usual(s)}`));
}

const signalLabel = (s) => `${s.words}: ${number(s.value, s.unit)}, ${usual(s)}`;

// ---- one asset ------------------------------------------------------------------------------------------------------

const isCalm = (asset) => asset.state === "ok" || asset.state === "warming";
const shortMode = (mode) => mode.words.split(": ")[0];

function unknown(asset) {
  if (asset.state === "silent") return "cannot know while it is silent";
  if (asset.state === "stopped") return "cannot know while it is stopped";
  if (asset.state === "ok") return "none in sight";
  return "cannot know yet";
}

function assetCell(asset) {
  const place = [asset.building || asset.site, asset.class].filter(Boolean).join(" · ");
  const button = el("button", "asset", asset.id);
  button.type = "button";
  button.setAttribute("aria-expanded", String(open.has(asset.id)));
  return [button, el("div", "small", place), asset.simulated ? el("span", "badge simulated", "Simulated") : null];
}

function stateCell(asset) {
  const name = el("span", "state", symbol(asset.state), ` ${STATES[asset.state]}`);
  name.title = STATE_HELP[asset.state];
  const since = asset.state === "silent" ? el("div", "small", `since ${when(asset.end_us)}`) : null;
  return [name, since, asset.rung ? el("div", "", el("span", `badge ${asset.rung}`, RUNGS[asset.rung])) : null];
}

function modeCell(asset) {
  if (isCalm(asset)) return [el("span", "small", asset.mode ? `nothing now; first in line: ${shortMode(asset.mode)}` : "nothing now")];
  if (!asset.mode) return [el("span", "unknown", "no failure mode stands out")];
  const [name, rest] = asset.mode.words.split(/: (.*)/);
  return [el("div", "mode", name), rest ? el("div", "", rest[0].toUpperCase() + rest.slice(1)) : null, el("div", "small", asset.mode.advice)];
}

function chanceCell(asset) {
  if (asset.chances.every((c) => c.probability === null)) return [el("span", "unknown", unknown(asset))];
  const grid = el("div", "chances");
  for (const c of asset.chances) {
    const deciding = c.horizon === asset.paging_horizon ? "small deciding" : "small";
    grid.append(el("span", deciding, horizonWords(c.horizon)));
    if (c.probability === null) grid.append(el("span"), el("span", "unknown", "unknown"));
    else grid.append(bar(c.probability, c.probability >= asset.page_at), el("span", "", percent(c.probability)));
  }
  return [grid];
}

function leadCell(asset) {
  const text = lead(asset.lead_s);
  return [text === null ? el("span", "unknown", unknown(asset)) : el("span", "left", text)];
}

function signalsCell(asset) {
  if (!asset.signals.length) return [];
  return [el("div", "signals", ...asset.signals.map((s) => el("div", "signal",
    el("div", "", chart(s.trace, s, 136, 40, signalLabel(s)), el("div", "share", `${percent(s.share)} of the score`)),
    el("div", "", el("div", "", s.words), reading(s)))))];
}

const CELLS = [
  ["Asset", assetCell], ["State", stateCell], ["What is likely to fail", modeCell],
  ["Chance of a breakdown", chanceCell], ["Lead time", leadCell],
  ["The signals that say so", signalsCell],
];

function newRow(id) {
  const entry = {row: el("tr", "row"), detail: el("tr", "detail"), shown: [], detailShown: "", id};
  entry.row.setAttribute("role", "row");
  entry.detail.setAttribute("role", "row");
  entry.detail.hidden = true;
  for (const [label] of CELLS) {
    const cell = el("td");
    cell.setAttribute("role", "cell");
    cell.dataset.label = label;
    entry.row.append(cell);
  }
  const cell = el("td", "", el("p", "small", "Loading"));
  cell.colSpan = CELLS.length;
  cell.setAttribute("role", "cell");
  entry.detail.append(cell);
  entry.row.addEventListener("click", (event) => {
    if (event.target.closest("button") || !String(getSelection())) toggle(entry);
  });
  return entry;
}

// Only what has changed is drawn again, so that focus, selection and an opened row survive a refresh.
function showAsset(entry, asset) {
  CELLS.forEach(([, cell], n) => {
    const key = JSON.stringify(n === 0 ? [asset.id, asset.building, asset.site, asset.class, asset.simulated]
      : n === 5 ? asset.signals : n === 4 ? [asset.lead_s, asset.state] : n === 3 ? [asset.chances, asset.state]
      : n === 2 ? [asset.mode && asset.mode.name, asset.state] : [asset.state, asset.rung, asset.state === "silent" && asset.end_us]);
    if (entry.shown[n] === key) return;
    entry.shown[n] = key;
    entry.row.children[n].replaceChildren(...cell(asset).filter(Boolean));
  });
}

function toggle(entry) {
  const now = !open.has(entry.id);
  if (now) open.add(entry.id); else open.delete(entry.id);
  showOpen(entry);
  if (now) loadDetail(entry);
}

function showOpen(entry) {
  const is = open.has(entry.id);
  entry.row.querySelector("button").setAttribute("aria-expanded", String(is));
  entry.row.classList.toggle("open", is);
  entry.detail.hidden = !is;
}

// ---- details --------------------------------------------------------------------------------------------------------

function facts(asset) {
  const list = el("dl", "facts");
  const add = (name, value) => value && list.append(el("dt", "", name), el("dd", "", value));
  add("Building", asset.building);
  add("Address", asset.address);
  add("Site", asset.site);
  add("Households", asset.households ? whole(asset.households) : "");
  add("Provider", asset.provider);
  add("Make", asset.make);
  add("In service since", asset.commissioned);
  add("Data up to", when(asset.end_us));
  add("Anomaly score", asset.score === null ? "unknown" : `${number(asset.score, "")} (alarm level is 1)`);
  return list;
}

function detail(asset) {
  const panel = el("div", "panel");
  if (asset.mode && !isCalm(asset)) {
    panel.append(el("p", "advice", el("b", "", "What to do: "), asset.mode.advice));
  }
  const left = el("div", "", el("h3", "", "Asset"), facts(asset));
  for (const e of asset.episodes) {
    left.append(el("p", "episode", el("span", `badge ${e.rung}`, RUNGS[e.rung] || e.rung), `${e.words}. Open since ${when(e.opened_us)}. `,
      el("span", "small", e.reason)));
  }
  if (asset.modes.length) {
    const grid = el("div", "modes");
    for (const m of asset.modes) {
      const name = el("span", "", shortMode(m));
      name.title = m.words;
      grid.append(name);
      if (m.health === null) grid.append(el("span"), el("span", "unknown small", "not known"));
      else grid.append(bar(m.health), el("span", "", percent(m.health)));
    }
    const heading = el("h3", "", "Health by failure mode");
    left.append(heading, el("p", "small", "100 % as new, 0 % the function is lost"), grid);
  }
  const charts = el("div", "charts");
  const span = asset.risk && asset.risk.ago_s.length > 1 ? asset.risk.ago_s[0] : 0;
  const axis = () => el("div", "axis", el("span", "", span ? `${one(span)} ago` : ""), el("span", "", "now"));
  if (asset.risk) {
    const words = `Chance of a breakdown within ${horizonWords(asset.paging_horizon)}`;
    const s = {value: null, lower: null, upper: null};
    charts.append(el("figure", "", el("figcaption", "", words, el("div", "small", `0 to 100 %; a page is sent at the dashed line, ${percent(asset.page_at)}`)),
      chart(asset.risk, s, 220, 64, words, {level: asset.page_at, bounds: [0, 1]}), axis()));
  }
  for (const s of asset.details) {
    charts.append(el("figure", "", el("figcaption", "", s.words, reading(s)), chart(s.trace, s, 220, 64, signalLabel(s)), axis()));
  }
  panel.append(left, el("div", "", el("h3", "", "What was measured, and what is usual for this asset"), charts));
  return panel;
}

async function loadDetail(entry) {
  try {
    const answer = await fetch(`/api/assets/${encodeURIComponent(entry.id)}`, {cache: "no-store"});
    if (!answer.ok) throw new Error(answer.status === 404 ? "This asset has left the fleet." : "The details cannot be read now.");
    const text = await answer.text();
    if (text === entry.detailShown) return;
    entry.detailShown = text;
    entry.detail.firstChild.replaceChildren(detail(JSON.parse(text)));
  } catch (error) {
    if (!entry.detailShown) entry.detail.firstChild.replaceChildren(el("p", "small", error.message));
  }
}

// ---- the fleet ------------------------------------------------------------------------------------------------------

function showStates(fleet) {
  const group = $("states");
  const shown = [["", "All assets", fleet.total], ...Object.entries(STATES).map(([key, word]) => [key, word, fleet.states[key] || 0])];
  for (const [key, word, count] of shown) {
    let button = group.querySelector(`[data-state="${key}"]`);
    if (!button) {
      button = el("button", "", symbol(key || "all"), el("b"), el("span", "", word));
      button.type = "button";
      button.dataset.state = key;
      button.title = key ? STATE_HELP[key] : "";
      button.addEventListener("click", () => ask({state: asked.state === key ? "" : key}));
      group.append(button);
    }
    button.querySelector("b").textContent = whole(count);
    button.setAttribute("aria-pressed", String(asked.state === key));
  }
}

function showFreshness(fleet) {
  const node = $("freshness");
  if (fleet.newest_us === null) {
    node.textContent = "No data yet";
    return;
  }
  const text = [`Data up to ${when(fleet.newest_us)}`];
  const age = Math.round(fleet.age_s);
  const stale = age > 120;
  text.push(age < 10 ? "received just now" : `received ${one(age)} ago`);
  // A simulated fleet has a clock of its own.
  const behind = Date.now() / 1000 - fleet.newest_us / 1e6;
  if (!fleet.simulated && behind > 900) text.push(`${one(behind)} behind the clock`);
  node.textContent = text.join(", ");
  node.classList.toggle("late", stale);
}

function showBanner(fleet) {
  $("simulated").hidden = !fleet.simulated;
  $("simulated").textContent = fleet.simulated === fleet.total
    ? "Simulated fleet: these assets do not exist, and nobody is called."
    : `Simulated fleet in part: ${whole(fleet.simulated)} of ${plural(fleet.total, "asset")} do not exist; each is marked.`;
}

function showPager(fleet) {
  for (const nav of document.querySelectorAll(".pager")) {
    if (!nav.children.length) {
      const step = (text, to) => {
        const button = el("button", "", text);
        button.type = "button";
        button.addEventListener("click", () => { ask({page: to()}); $("count").scrollIntoView({block: "nearest"}); });
        return button;
      };
      nav.append(step("Previous", () => asked.page - 1), el("span"), step("Next", () => asked.page + 1));
    }
    nav.hidden = fleet.pages < 2;
    nav.children[0].disabled = fleet.page <= 1;
    nav.children[1].textContent = `Page ${whole(fleet.page)} of ${whole(fleet.pages)}`;
    nav.children[2].disabled = fleet.page >= fleet.pages;
  }
}

function showCount(fleet) {
  const all = fleet.matching === fleet.total;
  let text = all ? plural(fleet.total, "asset") : `${whole(fleet.matching)} of ${plural(fleet.total, "asset")}`;
  if (fleet.pages > 1) text += `, ${whole((fleet.page - 1) * fleet.size + 1)} to ${whole((fleet.page - 1) * fleet.size + fleet.assets.length)} shown`;
  const openNow = [fleet.pages_open && plural(fleet.pages_open, "page"), fleet.tickets_open && plural(fleet.tickets_open, "ticket")].filter(Boolean);
  if (openNow.length) text += `; open: ${openNow.join(" and ")}`;
  if (fleet.registered !== null && fleet.registered > fleet.total) text += `; ${whole(fleet.registered - fleet.total)} of the register have sent nothing yet`;
  if ($("count").textContent !== text) $("count").textContent = text;
  $("empty").hidden = fleet.assets.length > 0;
  $("fleet").hidden = !fleet.assets.length;
  $("empty").textContent = fleet.total ? "No asset matches what you asked for." : "No asset has been scored yet. The first appear after a window of data.";
  document.title = fleet.states.failing ? `(${fleet.states.failing}) Vigie` : "Vigie";
}

function showClasses(fleet) {
  const select = $("class");
  $("class-label").hidden = fleet.classes.length < 2;
  for (const c of fleet.classes) {
    if ([...select.options].some((option) => option.value === c.name)) continue;
    const option = el("option", "", c.name[0].toUpperCase() + c.name.slice(1).replaceAll("_", " "));
    option.value = c.name;
    option.title = c.words;
    select.append(option);
  }
  select.value = asked.class;
}

function showRows(fleet) {
  const body = $("rows"), focused = document.activeElement;
  const wanted = new Set(fleet.assets.map((asset) => asset.id));
  for (const [id, entry] of rows) {
    if (wanted.has(id)) continue;
    entry.row.remove();
    entry.detail.remove();
    rows.delete(id);
  }
  let next = body.firstChild;
  for (const asset of fleet.assets) {
    let entry = rows.get(asset.id);
    if (!entry) rows.set(asset.id, entry = newRow(asset.id));
    showAsset(entry, asset);
    showOpen(entry);
    if (entry.row === next) next = entry.detail.nextSibling;
    else body.insertBefore(entry.row, next).after(entry.detail);
    if (open.has(asset.id)) loadDetail(entry);
  }
  if (focused && focused !== document.activeElement && focused.isConnected) focused.focus({preventScroll: true});
}

function show(fleet) {
  asked.page = fleet.page;
  showStates(fleet);
  showFreshness(fleet);
  showBanner(fleet);
  showPager(fleet);
  showClasses(fleet);
  showRows(fleet);
  showCount(fleet);
  const rejected = fleet.rejected ? `Rejected input: ${plural(fleet.rejected, "reading")}` : "Rejected input: none";
  if ($("rejected-summary").textContent !== rejected) $("rejected-summary").textContent = rejected;
  if ($("rejected").open) loadRejected();
}

async function load() {
  clearTimeout(timer);
  const mine = ++round;
  try {
    const answer = await fetch(`/api/fleet?${new URLSearchParams({...asked, size: 50})}`, {cache: "no-store"});
    if (!answer.ok) throw new Error(String(answer.status));
    const fleet = await answer.json();
    if (mine !== round) return;
    answeredAt = new Date();
    $("trouble").hidden = true;
    show(fleet);
  } catch (error) {
    if (mine !== round) return;
    const since = answeredAt ? ` What you see is from ${answeredAt.toLocaleTimeString("en-GB")}.` : "";
    $("trouble").textContent = `Vigie does not answer.${since} Trying again every ${EVERY_MS / 1000} s.`;
    $("trouble").hidden = false;
  }
  schedule();
}

function schedule() {
  clearTimeout(timer);
  if (!paused) timer = setTimeout(() => (document.hidden ? schedule() : load()), EVERY_MS);
}

function ask(change) {
  Object.assign(asked, {page: 1}, change);
  const kept = Object.entries(asked).filter(([key, value]) => value && !(key === "sort" && value === "risk") && !(key === "page" && value === 1));
  history.replaceState(null, "", kept.length ? `#${new URLSearchParams(kept)}` : location.pathname);
  load();
}

// ---- rejected input -------------------------------------------------------------------------------------------------

async function loadRejected() {
  let rejected;
  try {
    rejected = await (await fetch("/api/rejected", {cache: "no-store"})).json();
  } catch (error) {
    return;  // the fleet's own request says that Vigie does not answer
  }
  const text = JSON.stringify(rejected);
  if (text === loadRejected.shown) return;
  loadRejected.shown = text;
  const body = el("tbody");
  for (const r of rejected.reasons) body.append(el("tr", "", el("td", "", whole(r.readings)), el("td", "", r.words), el("td", "small", r.reason)));
  $("reasons").replaceChildren(rejected.reasons.length ? el("table", "", body) : el("p", "", "Nothing was rejected."));
  $("examples").replaceChildren(...(rejected.last.length ? [el("h3", "", "The last of it")] : []), ...rejected.last.slice(0, 20).map((e) =>
    el("div", "example",
      el("div", "", el("b", "", e.words), e.readings > 1 ? ` (${whole(e.readings)} readings)` : ""),
      el("div", "small", [e.asset, e.signal, e.start_us === null ? "" : when(e.start_us), e.source].filter(Boolean).join(" · ")),
      e.detail ? el("div", "", e.detail) : null,
      e.raw ? el("code", "", e.raw) : null)));
}

// ---- start ----------------------------------------------------------------------------------------------------------

function start() {
  for (const [key, value] of new URLSearchParams(location.hash.slice(1))) {
    if (key === "page") asked.page = Math.min(Math.max(parseInt(value, 10) || 1, 1), 1e6);
    else if (key in asked) asked[key] = value.slice(0, 200);
  }
  $("search").value = asked.search;
  $("sort").value = asked.sort;
  if (!$("sort").value) $("sort").value = asked.sort = "risk";
  let typing = 0;
  $("search").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => ask({search: $("search").value.trim()}), 200);
  });
  $("controls").addEventListener("submit", (event) => { event.preventDefault(); ask({search: $("search").value.trim()}); });
  $("class").addEventListener("change", () => ask({class: $("class").value}));
  $("sort").addEventListener("change", () => ask({sort: $("sort").value}));
  $("pause").addEventListener("click", () => {
    paused = !paused;
    $("pause").setAttribute("aria-pressed", String(paused));
    $("pause").textContent = paused ? "Updates paused" : "Pause updates";
    if (!paused) load(); else clearTimeout(timer);
  });
  $("rejected").addEventListener("toggle", () => $("rejected").open && loadRejected());
  document.addEventListener("visibilitychange", () => !document.hidden && !paused && load());
  document.addEventListener("keydown", keys);
  load();
}

function keys(event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (event.key === "/" && !typing) {
    event.preventDefault();
    $("search").focus();
  } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && event.target.classList.contains("asset")) {
    const buttons = [...document.querySelectorAll("button.asset")];
    const to = buttons[buttons.indexOf(event.target) + (event.key === "ArrowDown" ? 1 : -1)];
    if (to) { event.preventDefault(); to.focus(); }
  } else if (event.key === "ArrowDown" && event.target.id === "search") {
    const first = document.querySelector("button.asset");
    if (first) { event.preventDefault(); first.focus(); }
  }
}

start();
