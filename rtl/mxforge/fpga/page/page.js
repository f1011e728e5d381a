"use strict";

const byId = id => document.getElementById(id);

function made(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function drawn(tag, attributes = {}, text = "") {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.textContent = text;
  return node;
}

const clamped = (x, low, high) => Math.min(Math.max(x, low), high);

async function ask(path, body) {
  const options = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw { field: "hardware", message: "the server doesn't answer: was mxforge view stopped?" };
  }
  const answer = await response.json();
  if (!response.ok) throw answer;
  return { status: response.status, answer };
}

// ---- What is asked for

let facts;
let latest = 0;
let timer;

const choice = name => byId(`choice-${name}`);
const words = () => byId("values").value.split(/[\s,;()[\]{}\ufeff\u200b]+/).filter(word => word);

function parameters() {
  return Object.fromEntries(facts.choices.map(({ name }) => [name, choice(name).value]));
}

// As the server reads them; NaN for what it wouldn't take.
function numberOf(word) {
  const lower = word.toLowerCase().replaceAll("\u2212", "-");
  if (/^0x[0-9a-f]{8}$/.test(lower)) {
    const view = new DataView(new ArrayBuffer(4));
    view.setUint32(0, parseInt(lower, 16));
    return view.getFloat32(0);
  }
  const hex = /^([+-]?)0x(?=\.?[0-9a-f])([0-9a-f]*)\.?([0-9a-f]*)p([+-]?\d+)$/.exec(lower);
  if (hex) {
    const [, sign, whole, part, exponent] = hex;
    return (sign === "-" ? -1 : 1) * parseInt(whole + part, 16) * 2 ** (exponent - 4 * part.length);
  }
  if (/^[+-]?inf(inity)?$/.test(lower)) return lower.startsWith("-") ? -Infinity : Infinity;
  return /^[+-]?(?=\.?\d)\d*\.?\d*(e[+-]?\d+)?$/.test(lower) ? Number(lower) : NaN;
}

function setValues(texts) {
  byId("values").value = texts.join(", ");
  showBars();
}

// What was replaced by a preset, a drawing or a block of weights, oldest first; the block of weights that was taken last.
const past = [];
let taken = null;

function keep() {
  past.push({ values: byId("values").value, elsewhere: byId("elsewhere").value, taken });
  if (past.length > 100) past.shift();
  byId("undo").hidden = false;
}

function undo() {
  const before = past.pop();
  byId("values").value = before.values;
  byId("elsewhere").value = before.elsewhere;
  setTaken(before.taken);
  showBars();
  if (!past.length) {
    byId("values").focus();
    byId("undo").hidden = true;
  }
  run();
}

function setTaken(block) {
  taken = block;
  byId("taken").textContent = block
    ? `Taken: block ${block.index} of ${block.tensor}, whose largest magnitude, ${block.amax}, counts for conventional FP8.` : "";
}

// What is shown isn't of what is asked.
function spoil() {
  byId("result").classList.add("stale");
}

function showError(field, message, span, isAsked = false) {
  for (const error of document.querySelectorAll(".error")) error.textContent = "";
  for (const input of document.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
  if (!field) return;
  const place = byId(`${field}-error`);
  const input = byId(field) || choice(field);
  if (!place) {
    say(message, "bad");
    return;
  }
  place.textContent = message;
  say("");
  if (!input) return;
  input.setAttribute("aria-invalid", "true");
  // Where the user goes on; not while another field is in use.
  if (isAsked) {
    input.focus();
    if (span) input.setSelectionRange(...span);
  }
}

function say(message, kind = "") {
  byId("status").className = kind;
  byId("status").textContent = message;
}

function soon() {
  clearTimeout(timer);
  timer = setTimeout(run, 250);
}

// More than a block in any notation, and less than the server takes.
const LONGEST = 20000;

// With `isAsked` by the user, who waits for it.
async function run({ isAsked } = {}) {
  clearTimeout(timer);
  const mine = ++latest;
  const isOld = () => mine !== latest;
  const asked = { values: byId("values").value, parameters: parameters(), elsewhere: byId("elsewhere").value };
  if (asked.parameters.rounding === "stochastic") asked.seed = byId("seed").value === "" ? null : Number(byId("seed").value);
  spoil();
  if (asked.values.length > LONGEST) {
    showError("values", `a block is ${facts.block_size} values, and not ${words().length.toLocaleString("en")} in as many as `
      + `${asked.values.length.toLocaleString("en")} characters`, null, isAsked);
    return;
  }
  remember(asked);
  try {
    let reply;
    while ((reply = await ask("run", asked)).status === 202) {
      if (isOld()) return;
      const message = "Building the hardware for these choices: some 10 seconds, once (the very first time half a minute) …";
      if (byId("status").textContent !== message) say(message, "busy");
      await new Promise(resolve => setTimeout(resolve, 400));
    }
    if (isOld()) return;
    showError();
    show(reply.answer);
    const waves = await ask("waves", { run: reply.answer.run });
    if (!isOld()) scope.show(waves.answer);
  } catch (error) {
    if (!error.field) throw error;
    if (!isOld()) showError(error.field, error.message, error.span, isAsked);
  }
}

function remember({ parameters, elsewhere, seed }) {
  const state = new URLSearchParams({ values: words().join(" "), ...parameters });
  if (elsewhere) state.set("elsewhere", elsewhere);
  if (seed !== undefined) state.set("seed", seed);
  history.replaceState(null, "", `#${state}`);
}

function recall() {
  const state = new URLSearchParams(location.hash.slice(1));
  setValues(state.has("values") ? state.get("values").split(" ") : facts.presets.Normal);
  for (const { name, options, default: usual } of facts.choices) {
    choice(name).value = options.includes(state.get(name)) ? state.get(name) : usual;
  }
  byId("elsewhere").value = state.get("elsewhere") || "";
  byId("seed").value = state.get("seed") || "0";
  setTaken(null);
  showChoices();
  run();
}

function showChoices() {
  for (const { name, meanings } of facts.choices) byId(`${name}-hint`).textContent = meanings[choice(name).value];
  showSeed();
}

function showSeed() {
  byId("seed-field").hidden = choice("rounding").value !== "stochastic";
}

// ---- Drawing

// FP32 has little more.
const LARGEST = 3.4e38;
let height = 1;
let current = 0;

function showBars() {
  const numbers = words().map(numberOf);
  const largest = Math.max(...numbers.filter(Number.isFinite).map(Math.abs), 0);
  // 1, 2 or 5 times a power of ten.
  const power = 10 ** Math.floor(Math.log10(largest || 1));
  height = Math.min([1, 2, 5, 10].map(n => Number((n * power).toPrecision(1))).find(n => n >= largest) || 1, LARGEST);
  byId("bars-height").textContent = `from -${height} to ${height}`;
  [...byId("bars").children].forEach((bar, n) => showBar(bar, n, numbers[n]));
}

function showBar(bar, n, number) {
  const share = Number.isFinite(number) ? clamped(number / height, -1, 1) : 0;
  const [fill] = bar.children;
  fill.style.height = `${Math.abs(share) * 50}%`;
  fill.style[share < 0 ? "top" : "bottom"] = "50%";
  fill.style[share < 0 ? "bottom" : "top"] = "";
  bar.classList.toggle("strange", number !== undefined && !Number.isFinite(number));
  bar.setAttribute("aria-valuemin", -height);
  bar.setAttribute("aria-valuemax", height);
  bar.setAttribute("aria-valuenow", Number.isFinite(number) ? number : 0);
  bar.setAttribute("aria-valuetext", number === undefined ? "missing" : words()[n]);
}

function draw(n, number) {
  const texts = words();
  while (texts.length < facts.block_size) texts.push("0");
  texts[n] = String(Number(clamped(number, -height, height).toPrecision(3)));
  byId("values").value = texts.join(", ");
  showBar(byId("bars").children[n], n, Number(texts[n]));
  byId("taken").textContent = "";
  soon();
}

function pick(n) {
  const bars = byId("bars").children;
  bars[current].tabIndex = -1;
  current = clamped(n, 0, bars.length - 1);
  bars[current].tabIndex = 0;
  bars[current].focus();
}

function makeBars() {
  const bars = byId("bars");
  for (let n = 0; n < facts.block_size; n++) {
    bars.append(made("div", { class: "bar", role: "slider", tabindex: n ? -1 : 0, "aria-orientation": "vertical",
      "aria-label": `Value ${n + 1}` }, made("span")));
  }
  let held = null;
  const drawAt = event => {
    const box = bars.getBoundingClientRect();
    const n = clamped(Math.floor((event.clientX - box.left) / box.width * facts.block_size), 0, facts.block_size - 1);
    const share = 1 - 2 * (event.clientY - box.top) / box.height;
    // Those that a quick move passed over, too.
    const last = held.last ?? { n, share };
    const steps = Math.max(Math.abs(n - last.n), 1);
    for (let step = 1; step <= steps; step++) {
      const between = last.share + (share - last.share) * step / steps;
      draw(last.n + Math.sign(n - last.n) * step, Math.round(between * 100) / 100 * height);
    }
    held.last = { n, share };
  };
  // A mouse draws at once; a finger when it moves to the side or is lifted, as it may be scrolling.
  const begin = event => {
    held.isDrawing = true;
    keep();
    drawAt(event);
  };
  bars.addEventListener("pointerdown", event => {
    if (!event.isPrimary || event.button) return;
    held = { first: event };
    if (event.pointerType !== "mouse") return;
    event.preventDefault();
    bars.setPointerCapture(event.pointerId);
    begin(event);
  });
  bars.addEventListener("pointermove", event => {
    if (!held || !event.isPrimary) return;
    if (!held.isDrawing) {
      if (Math.abs(event.clientX - held.first.clientX) < 6) return;
      begin(held.first);
    }
    drawAt(event);
  });
  bars.addEventListener("pointerup", event => {
    if (held && event.isPrimary && !held.isDrawing) begin(event);
    held = null;
  });
  bars.addEventListener("pointercancel", () => { held = null; });
  bars.addEventListener("keydown", event => {
    const number = numberOf(words()[current] || "0") || 0;
    const step = height / 50;
    const to = { ArrowUp: number + step, ArrowDown: number - step, PageUp: number + 10 * step, PageDown: number - 10 * step,
      Home: -height, End: height, 0: 0 }[event.key];
    const other = { ArrowLeft: current - 1, ArrowRight: current + 1 }[event.key];
    if (to === undefined && other === undefined) return;
    event.preventDefault();
    if (to === undefined) {
      pick(other);
      return;
    }
    keep();
    draw(current, to);
  });
}

// ---- What came back

function bits(fields) {
  const node = made("span", { class: "bits" });
  for (const [name, digits] of fields) node.append(made("i", { class: name, title: name }, digits));
  return node;
}

function counted(counts) {
  return Object.keys(facts.outcomes).filter(name => counts[name]).map(name => `${counts[name]} ${name}`).join(", ");
}

function tile(title, value, ...more) {
  return made("div", {}, made("dt", {}, title), made("dd", {}, value, ...more.map(line => made("small", {}, line))));
}

const decibels = text => text === null ? "none" : text === "infinite" ? "∞ dB" : `${text} dB`;
const meaning = text => text === null ? "a value isn't finite" : text === "infinite" ? "nothing is lost" : "signal to noise, higher is better";

function show(answer) {
  const { scale, amax, tensor, counts, sqnr, differences, parameters: p } = answer;
  const isNan = scale.exponent === null;
  const power = isNan ? "NaN" : `2^${scale.exponent}`;
  const size = side => answer.rows[0][side].bits.reduce((sum, [, digits]) => sum + digits.length, 0);
  byId("result").hidden = false;
  byId("result").classList.remove("stale");
  const verdict = byId("verdict");
  verdict.classList.toggle("bad", differences > 0);
  verdict.textContent = differences
    ? `${differences} numbers DIFFER from the golden model: the hardware is wrong. Please report this page's link.`
    : `Bits equal to golden: the scale, ${answer.rows.length} codes and ${answer.rows.length} values.`;
  byId("tiles").replaceChildren(
    tile("Shared scale (E8M0)", power, `${scale.hex} = ${scale.bits}`, isNan ? "all values are NaN" : `2^(code - 127) = ${scale.value}`),
    tile("Largest magnitude", amax.value, amax.hex, `the scale follows by ${p.scale_rule}`),
    tile(`MX, ${p.element.toUpperCase()}`, decibels(sqnr.mx), meaning(sqnr.mx), counted(counts.mx),
      `${size("mx") + 8 / answer.rows.length} bits a value with the scale`),
    tile(`Conventional FP8, ${tensor.element.toUpperCase()}`, decibels(sqnr.fp8), meaning(sqnr.fp8), counted(counts.fp8),
      `${size("fp8")} bits a value`));
  byId("table-note").textContent = `Conventional FP8 is the golden model's, not the board's: codes, rounded to nearest even, under one `
    + `FP32 scale, ${tensor.scale}, for a tensor whose largest finite magnitude is ${tensor.amax}.`;
  byId("words").replaceChildren(...Object.entries(facts.outcomes).filter(([name]) => counts.mx[name] || counts.fp8[name])
    .flatMap(([name, text]) => [made("dt", {}, name), made("dd", {}, text)]));
  showTable(answer);
  showPlot(answer);
  const told = side => counted(counts[side]) + (sqnr[side] ? `, ${decibels(sqnr[side])}` : "");
  say(`Done: scale ${power}; MX: ${told("mx")}; conventional FP8: ${told("fp8")}; ${differences ? `${differences} DIFFER from golden` : "bits equal to golden"}.`);
}

function showTable({ rows, tensor, parameters: p }) {
  const isRandom = "random" in rows[0];
  const sides = [["mx", "left", `MX, ${p.element.toUpperCase()}: from the hardware`],
    ["fp8", "right", `Conventional FP8, ${tensor.element.toUpperCase()}: golden model`]];
  const heads = [["code", "Code"], ["value", "Stands for"], ["off", "Error"], ["what", "What happened"]];
  const head = (text, more) => made("th", { scope: "col", role: "columnheader", ...more }, text);
  const top = made("tr", { role: "row" }, made("td", { colspan: isRandom ? 4 : 3, role: "cell" }));
  const second = made("tr", { role: "row" }, head("#"), head("Value"), head("FP32 bits"));
  if (isRandom) second.append(head("Random"));
  for (const [side, , title] of sides) {
    top.append(made("th", { class: `side ${side}`, colspan: heads.length, scope: "colgroup", role: "columnheader" }, title));
    for (const [name, title] of heads) second.append(head(title, { class: name }));
  }
  const body = made("tbody", { role: "rowgroup" });
  rows.forEach((row, n) => {
    const cell = (classes, label, ...children) => made("td", { class: classes, role: "cell", ...label && { "data-label": label } }, ...children);
    const line = made("tr", { role: "row", class: row.is_largest ? "largest" : "" });
    const before = made("span", {}, row.before);
    if (row.typed !== row.before) before.append(" ", made("small", {}, `(${row.typed})`));
    if (row.is_largest) before.append(" ", made("small", { title: "largest of the block" }, "amax"));
    line.append(cell("number", "", String(n + 1)), cell("before", "", before), cell("wide", "FP32 bits", bits(row.bits)));
    if (isRandom) line.append(cell("random", "Random", made("code", {}, row.random)));
    for (const [side, where] of sides) {
      const { hex, bits: fields, value, error, relative, outcome, is_subnormal: isSubnormal } = row[side];
      const name = side === "mx" ? "MX" : "FP8";
      const mark = made("span", { class: outcome === "exact" || outcome === "rounded" ? `outcome ${outcome}` : "outcome lost", title: facts.outcomes[outcome] }, outcome);
      const off = [error ?? "not finite", ...relative === null ? [] : [" ", made("small", {}, percent(relative))]];
      line.append(
        cell(`${where} code`, name, bits(fields), ...side === "mx" ? [" ", made("small", {}, hex)] : []),
        cell(`${where} value`, "is", value),
        cell(`${where} off`, "error", ...off),
        cell(`${where} what`, "", mark, ...isSubnormal ? [" ", made("small", { title: "below the format's normal numbers: fewer bits" }, "subnormal")] : []));
    }
    body.append(line);
  });
  const table = byId("table");
  table.setAttribute("role", "table");
  table.setAttribute("aria-labelledby", "values-title");
  table.replaceChildren(made("thead", { role: "rowgroup" }, top, second), body);
}

function percent(relative) {
  const share = 100 * Number(relative);
  return `${share >= 0.001 || !share ? Number(share.toPrecision(2)) : share.toExponential(0)}%`;
}

let plotted = null;

function showPlot({ rows }) {
  const place = byId("plot");
  plotted = { rows };
  const width = Math.max(place.clientWidth, 260);
  const high = 150, left = 44, low = -3, bottom = high - 14;
  const svg = drawn("svg", { width, height: high, viewBox: `0 0 ${width} ${high}` });
  // Decades from 0.1 % to what is lost, and exact ones below.
  const levels = [[0, "100%"], [-1, "10%"], [-2, "1%"], [-3, "0.1%"], [low - 1, "exact"]];
  const y = level => 10 + (bottom - 10) * -level / (1 - low);
  for (const [level, name] of levels) {
    svg.append(drawn("line", { class: "grid", x1: left, x2: width, y1: y(level), y2: y(level) }),
      drawn("text", { class: "muted", x: left - 6, y: y(level) + 4, "text-anchor": "end" }, name));
  }
  const step = (width - left) / rows.length;
  rows.forEach((row, n) => {
    for (const side of ["fp8", "mx"]) {
      const { error, relative, outcome } = row[side];
      if (outcome === "infinity" || outcome === "NaN") continue;
      const share = error === null ? 1 : Number(relative);
      const at = y(share ? clamped(Math.log10(share), low - 0.5, 0) : low - 1);
      const x = left + (n + 0.5) * step;
      const mark = side === "mx" ? drawn("circle", { class: "mx", cx: x - 1.5, cy: at, r: 3.5 })
        : drawn("path", { class: "fp8", d: `M${x + 1.5} ${at - 5}l5 5l-5 5l-5 -5z` });
      svg.append(mark);
    }
  });
  const told = side => {
    const finite = rows.map(row => row[side].relative).filter(relative => relative !== null).map(Number);
    const worst = finite.length ? `up to ${percent(Math.max(...finite))}` : "";
    return [worst, finite.length < rows.length ? `${rows.length - finite.length} not finite` : ""].filter(text => text).join(", ");
  };
  place.setAttribute("aria-label", `Relative errors: MX ${told("mx")}; conventional FP8 ${told("fp8")}.`);
  place.replaceChildren(svg);
  place.dataset.drawn = "";
}

// ---- Waves

const ROW = 20;

class Scope {
  constructor() {
    this.place = byId("waves");
    const moves = { ArrowLeft: () => this.pan(-0.2), ArrowRight: () => this.pan(0.2), "+": () => this.zoom(0.5), "=": () => this.zoom(0.5),
      "-": () => this.zoom(2), Home: () => this.look(0, this.data.clocks), n: () => this.step(1), p: () => this.step(-1) };
    const speak = key => {
      if (key === "n" || key === "p") return;
      byId("spoken").textContent = `clocks ${Math.round(this.from)} to ${Math.round(this.to)} of ${this.data.clocks}`;
    };
    this.place.addEventListener("keydown", event => {
      if (!this.data || event.ctrlKey || event.altKey || event.metaKey || !(event.key in moves)) return;
      event.preventDefault();
      moves[event.key]();
      speak(event.key);
    });
    for (const [id, key] of [["zoom-in", "+"], ["zoom-out", "-"], ["left", "ArrowLeft"], ["right", "ArrowRight"]]) {
      byId(id).addEventListener("click", () => {
        if (!this.data) return;
        moves[key]();
        speak(key);
      });
    }
    this.place.addEventListener("wheel", event => {
      if (!this.data || !(event.ctrlKey || document.activeElement === this.place)) return;
      event.preventDefault();
      this.zoom(event.deltaY > 0 ? 1.25 : 0.8, this.clockAt(event));
    }, { passive: false });
    this.place.addEventListener("pointerdown", event => {
      if (!this.data) return;
      this.place.setPointerCapture(event.pointerId);
      this.held = { x: event.clientX, from: this.from, to: this.to };
      this.setCursor(this.clockAt(event));
    });
    this.place.addEventListener("pointermove", event => {
      if (!this.data) return;
      if (this.held && this.place.hasPointerCapture(event.pointerId)) {
        const clocks = (this.held.x - event.clientX) / this.room * (this.held.to - this.held.from);
        this.look(this.held.from + clocks, this.held.to + clocks);
      } else if (event.pointerType === "mouse") {
        this.setCursor(this.clockAt(event));
      }
    });
    for (const name of ["pointerup", "pointercancel"]) this.place.addEventListener(name, () => { this.held = null; });
    new ResizeObserver(() => this.data && this.draw()).observe(this.place);
  }

  show(data) {
    const part = this.part && data.parts.find(([name]) => name === this.part);
    this.data = data;
    this.cursor = null;
    this.lines = [];
    for (const row of data.rows) {
      const isFirst = !this.lines.some(line => line.row && line.row.group === row.group);
      if (isFirst && row.group !== "line") this.lines.push({ title: row.group });
      if (row.name in data.lines) this.lines.push({ bytes: data.lines[row.name], name: `${row.name} bytes` });
      this.lines.push({ row, name: row.name });
    }
    // Where a payload isn't valid it says nothing.
    const named = Object.fromEntries(data.rows.map(row => [`${row.group} ${row.name}`, row]));
    for (const row of data.rows) row.valid = row.name.endsWith("payload") ? named[`${row.group} ${row.name.replace("payload", "valid")}`] : null;
    byId("parts").replaceChildren(...data.parts.map(([name, first, last]) => {
      const button = made("button", { type: "button", "aria-pressed": "false" }, name);
      button.addEventListener("click", () => {
        this.part = name;
        this.look(first, last);
      });
      return button;
    }));
    const [, first, last] = part || data.parts[0];
    this.look(first, last);
    this.place.dataset.run = "shown";
  }

  look(from, to) {
    const span = clamped(to - from, 8, this.data.clocks);
    this.from = clamped(from, 0, this.data.clocks - span);
    this.to = this.from + span;
    [...byId("parts").children].forEach((button, n) => {
      const [, first, last] = this.data.parts[n];
      const isThis = Math.abs(Math.max(first, 0) - this.from) < 1 && Math.abs(Math.min(last, this.data.clocks) - this.to) < 1;
      button.setAttribute("aria-pressed", String(isThis));
    });
    this.draw();
  }

  pan(share) {
    const clocks = share * (this.to - this.from);
    this.look(this.from + clocks, this.to + clocks);
  }

  zoom(factor, about) {
    const isInside = this.cursor !== null && this.cursor >= this.from && this.cursor <= this.to;
    const fixed = about ?? (isInside ? this.cursor : (this.from + this.to) / 2);
    this.look(fixed - (fixed - this.from) * factor, fixed + (this.to - fixed) * factor);
  }

  step(direction) {
    const now = this.cursor ?? Math.floor(this.from) - (direction > 0 ? 1 : 0);
    const all = this.data.rows.flatMap(row => row.changes.map(([clock]) => clock)).filter(clock => direction > 0 ? clock > now : clock < now);
    if (!all.length) return;
    const to = direction > 0 ? all.reduce((a, b) => Math.min(a, b)) : all.reduce((a, b) => Math.max(a, b));
    if (to < this.from || to > this.to) this.look(to - (this.to - this.from) / 2, to + (this.to - this.from) / 2);
    this.setCursor(to);
    const changed = this.data.rows.flatMap(row => row.changes.filter(([clock]) => clock === to)
      .map(([, level]) => `${row.group} ${row.name} ${level}`));
    byId("spoken").textContent = `clock ${to}: ${changed.join("; ")}`;
  }

  clockAt(event) {
    const x = event.clientX - this.place.getBoundingClientRect().left - this.gutter;
    return clamped(Math.floor(this.from + x / this.room * (this.to - this.from)), 0, this.data.clocks - 1);
  }

  // The change that holds at a clock.
  static at(changes, clock) {
    let low = 0, high = changes.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (changes[middle][0] <= clock) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  static level(row, clock) {
    const n = Scope.at(row.changes, clock);
    return n < 0 ? 0 : row.changes[n][1];
  }

  setCursor(clock) {
    this.cursor = clock;
    const texts = [];
    for (const { title, name, row, bytes } of this.lines) {
      if (title) texts.push(`\n${title}:`);
      if (bytes) {
        const n = Scope.at(bytes, clock);
        const isInside = n >= 0 && clock < bytes[n][0] + 10 * this.data.divisor;
        texts.push(`${name.split(" ")[0]} byte ${isInside ? `${hex(bytes[n][1])} (${bytes[n][2]})` : "none"},`);
      } else if (row) texts.push(`${name} ${Scope.level(row, clock)};`);
    }
    byId("readout").textContent = `clock ${clock}: ${texts.join(" ")}`;
    this.drawCursor();
  }

  drawCursor() {
    this.line?.remove();
    if (this.cursor === null || this.cursor < this.from || this.cursor > this.to) return;
    const x = this.x(this.cursor + 0.5);
    this.line = drawn("line", { class: "cursor", x1: x, x2: x, y1: 0, y2: this.svg.getAttribute("height") });
    this.svg.append(this.line);
  }

  x(clock) {
    return this.gutter + (clock - this.from) / (this.to - this.from) * this.room;
  }

  draw() {
    const width = this.place.clientWidth;
    this.gutter = 78;
    this.room = width - this.gutter - 6;
    const high = (this.lines.length + 1) * ROW + 6;
    this.svg = drawn("svg", { height: high, viewBox: `0 0 ${width} ${high}`, "aria-hidden": "true" });
    const step = [1, 2, 5].flatMap(n => [1, 10, 100, 1000, 10000].map(power => n * power)).sort((a, b) => a - b)
      .find(n => n / (this.to - this.from) * this.room > 70) || 50000;
    for (let clock = Math.ceil(this.from / step) * step; clock <= this.to; clock += step) {
      const x = this.x(clock);
      this.svg.append(drawn("line", { class: "grid", x1: x, x2: x, y1: ROW - 4, y2: high }));
      if (x < width - 40) this.svg.append(drawn("text", { class: "muted", x: x + 2, y: 12 }, clock.toLocaleString("en")));
    }
    this.svg.append(drawn("text", { class: "muted", x: 6, y: 12 }, "clock"));
    this.lines.forEach((line, n) => {
      const y = (n + 1) * ROW;
      if (line.title) this.svg.append(drawn("text", { class: "group", x: 6, y: y + 15 }, line.title));
      else this.svg.append(drawn("text", { x: 6, y: y + 15 }, line.name));
      if (line.bytes) this.drawBytes(line.bytes, y);
      else if (line.row?.valid) this.drawBus(line.row, y);
      else if (line.row) this.drawBit(line.row, y);
    });
    this.place.replaceChildren(this.svg);
    this.drawCursor();
  }

  box(first, last, y, text, classes) {
    const x = Math.max(this.x(first), this.gutter), end = Math.min(this.x(last), this.gutter + this.room);
    this.svg.append(drawn("rect", { class: classes, x, y: y + 3, width: Math.max(end - x, 0.5), height: ROW - 6, rx: 2 }));
    const room = Math.floor((end - x - 4) / 6.4);
    const shown = text.length <= room ? text : room >= 5 ? text.slice(0, room - 1) + "…" : "";
    if (shown) this.svg.append(drawn("text", { class: classes.includes("idle") ? "code muted" : "code", x: x + 3, y: y + 14 }, shown));
  }

  drawBytes(bytes, y) {
    for (const [clock, byte, label] of bytes) {
      const end = clock + 10 * this.data.divisor;
      if (end < this.from || clock > this.to) continue;
      const isRoomy = this.x(end) - this.x(clock) > 30;
      this.box(clock, end, y, isRoomy ? `${hex(byte)} ${label}` : hex(byte), "byte");
    }
  }

  drawBus({ changes, valid }, y) {
    // From one change of the payload, or of its validity, to the next.
    const edges = [...new Set([...changes, ...valid.changes].map(([clock]) => clock))].sort((a, b) => a - b);
    edges.forEach((clock, n) => {
      const end = edges[n + 1] ?? this.data.clocks;
      if (end < this.from || clock > this.to) return;
      const isValid = Scope.level({ changes: valid.changes }, clock);
      const text = String(Scope.level({ changes }, clock));
      this.box(clock, end, y, text, isValid ? "bus" : "bus idle");
    });
  }

  drawBit({ changes }, y) {
    const at = level => y + (level ? 4 : ROW - 4);
    let level = Scope.level({ changes }, Math.floor(this.from));
    let path = `M${this.gutter} ${at(level)}`;
    for (let n = Scope.at(changes, this.from) + 1; n < changes.length && changes[n][0] <= this.to; n++) {
      level = changes[n][1];
      path += `H${this.x(changes[n][0])}V${at(level)}`;
    }
    this.svg.append(drawn("path", { class: "trace", d: `${path}H${this.gutter + this.room}` }));
  }
}

const hex = byte => byte.toString(16).padStart(2, "0");

// ---- The page

const scope = new Scope();

function makeChoices() {
  for (const { name, title, options } of facts.choices) {
    const select = made("select", { id: `choice-${name}`, "aria-describedby": `${name}-hint ${name}-error` },
      ...options.map(option => made("option", { value: option }, option)));
    select.addEventListener("change", () => {
      showChoices();
      run();
    });
    byId("choices").append(made("div", { class: "field" },
      made("label", { for: `choice-${name}` }, title[0].toUpperCase() + title.slice(1)), select,
      made("p", { id: `${name}-error`, class: "error", role: "alert" }), made("p", { id: `${name}-hint`, class: "hint" })));
  }
}

function makePresets() {
  for (const [name, texts] of Object.entries(facts.presets)) {
    const button = made("button", { type: "button" }, name);
    button.addEventListener("click", () => {
      keep();
      setValues(texts);
      // It isn't of that tensor.
      if (taken && byId("elsewhere").value === taken.amax) byId("elsewhere").value = "";
      setTaken(null);
      run();
    });
    byId("presets").append(button);
  }
}

function makeWeights() {
  const { tensors, no_tensors: why } = facts;
  byId("no-weights").textContent = why || "";
  byId("no-weights").hidden = !why;
  byId("some-weights").hidden = Boolean(why);
  const tensor = byId("tensor"), index = byId("index");
  tensor.append(...tensors.map(({ name }) => made("option", {}, name)));
  const blocks = () => tensors[tensor.selectedIndex].blocks;
  const showRange = () => { byId("index-range").textContent = `0 to ${(blocks() - 1).toLocaleString("en")}`; };
  const take = async () => {
    try {
      const { answer } = await ask("block", { tensor: tensor.value, index: index.value === "" ? null : Number(index.value) });
      keep();
      setValues(answer.values);
      byId("elsewhere").value = answer.amax;
      setTaken({ tensor: tensor.value, index: index.value, amax: answer.amax });
      run();
    } catch (error) {
      if (!error.field) throw error;
      showError(error.field, error.message, null, true);
    }
  };
  if (tensors.length) showRange();
  tensor.addEventListener("change", showRange);
  byId("take").addEventListener("click", take);
  byId("any").addEventListener("click", () => {
    index.value = Math.floor(Math.random() * blocks());
    take();
  });
  index.addEventListener("keydown", event => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    take();
  });
}

async function start() {
  try {
    facts = (await ask("choices")).answer;
  } catch (error) {
    say(error.message, "bad");
    return;
  }
  for (const node of document.querySelectorAll(".size")) node.textContent = facts.block_size;
  makeChoices();
  makePresets();
  makeBars();
  makeWeights();
  new ResizeObserver(() => plotted && showPlot(plotted)).observe(byId("plot"));
  byId("form").addEventListener("submit", event => {
    event.preventDefault();
    run({ isAsked: true });
  });
  byId("form").addEventListener("input", event => {
    // A block of weights counts when it is taken; choices run at once.
    if (event.target.closest("#weights") || event.target.tagName === "SELECT") return;
    // An answer that is under way is of what was there.
    latest++;
    clearTimeout(timer);
    spoil();
    say("Changed. Run shows what becomes of it.");
  });
  byId("values").addEventListener("input", () => {
    showBars();
    byId("taken").textContent = "";
  });
  byId("undo").addEventListener("click", undo);
  byId("values").addEventListener("keydown", event => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      run({ isAsked: true });
    }
  });
  byId("copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(location.href);
      say("The link is copied: it holds this block and these choices.");
    } catch {
      say("The browser lets nothing be copied; its address bar has the link.");
    }
  });
  addEventListener("hashchange", recall);
  recall();
}

start();
