"use strict";
// Everything from the server is text: it enters the page through textContent only.

const SHOWN = 40; // chips at most; typing finds all other labels
const REACTION = 300; // ms: a number pressed so soon means the chips as they were before they moved
const $ = (id) => document.getElementById(id);
const windowId = Math.random().toString(36).slice(2);

let state = null; // of the photo that is shown, as the server sent it
let acts = []; // what the user decided on it, in order: {label, on}
let probability = new Map(); // of each label, given the acts
let predicted = new Set(); // labels to switch on, given the acts
let numbered = [], before = [], movedAt = 0; // labels of the keys 1 … 9, 0; those before they moved
let asked = 0; // the last question for probabilities: older answers are dropped
let busy = false; // an answer is on its way to the disk, or the next photo to the page
let choice = 0; // in the list under the text
const visited = []; // photos shown before this one
const answered = []; // for undo: {photo, acts, version}
const drafts = new Map(); // photo -> acts not accepted yet
const skipped = [];

async function ask(path, body) {
  let response;
  try {
    response = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
  } catch {
    notice("annotate.py does not answer. Start it again and reload this page: every accepted photo is saved.");
    return null;
  }
  const found = await response.json().catch(() => ({ error: "annotate.py refused the request" }));
  if (response.ok) return found;
  if (response.status === 409) {
    if (startOf(found) !== startOf(state)) location.reload();
    drafts.delete(found.photo);
    show(found);
    notice("This photo was answered in another window. Its labels are shown as they are now.");
  } else {
    notice(`${found.error}. Nothing was saved.`);
  }
  return null;
}

const startOf = (shown) => (shown ? shown.version.split("-")[0] : "");
const pictureOf = (photo) => `photo/${photo}?start=${startOf(state)}`;

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

// --- one photo ----------------------------------------------------------------------------------

function show(found) {
  if (state && state.photo !== found.photo) drafts.set(state.photo, acts);
  state = found;
  acts = drafts.get(state.photo) || [];
  rank(state.ranked);
  [numbered, before, movedAt] = [[], [], 0];
  delete $("frame").dataset.shown; // nobody accepts a photo that they have not seen
  asked += 1;
  notice("");
  document.querySelector("main").querySelectorAll("#stage, #panel, nav").forEach((e) => (e.hidden = false));
  $("end").hidden = true;
  history.replaceState(null, "", `#${state.photo}`);
  $("heat").hidden = true;
  $("frame").hidden = false;
  $("unreadable").hidden = true;
  if (state.error) fail(state.error);
  else $("photo").src = pictureOf(state.photo);
  $("photo").alt = `The photo ${state.name}`;
  $("name").textContent = state.name + (state.verified ? " ✓ confirmed" : "");
  $("text").value = "";
  progress(state.progress);
  if (acts.length) score();
  draw();
  $("said").textContent = `Photo ${state.name}`;
  if (state.upcoming != null) new Image().src = pictureOf(state.upcoming);
}

// Rows of label, probability, and whether to switch it on.
function rank(rows) {
  probability = new Map(rows.map(([label, p]) => [label, p]));
  predicted = new Set(rows.filter(([, , on]) => on).map(([label]) => label));
}

// A photo that cannot be read gets no labels: Enter skips it.
function fail(reason) {
  state.error = reason;
  $("frame").hidden = true;
  $("unreadable").hidden = false;
  $("unreadable").textContent = `${reason}. Enter skips it.`;
}

function progress({ photos, verified, left, rated, is_rating: rating }) {
  const share = photos ? (100 * verified) / photos : 0;
  $("bar").firstElementChild.style.width = `${share}%`;
  $("bar").setAttribute("aria-valuemax", photos);
  $("bar").setAttribute("aria-valuenow", verified);
  const n = (number) => number.toLocaleString("en");
  const texts = [`${n(verified)} of ${n(photos)} photos confirmed, ${n(left)} waiting`];
  if (rating) texts.push(`${n(rated)} looked through so far`);
  $("count").textContent = texts.join("; ");
}

// --- labels -------------------------------------------------------------------------------------

const everyLabel = () => [...new Set([...probability.keys(), ...(state.labels || []), ...acts.map((act) => act.label)])];
const decided = (label) => acts.findLast((act) => act.label === label);

// Without the user's word: the labels that are saved, else what the network predicts.
function isOn(label) {
  const act = decided(label);
  if (act) return act.on;
  if (state.labels) return state.labels.includes(label);
  return predicted.has(label);
}

const toggle = (label) => decide(label, !isOn(label));

function decide(label, on) {
  if (!state || busy || state.error) return;
  acts.push({ label, on });
  $("said").textContent = `${label} ${on ? "on" : "off"}`;
  look(null);
  draw();
  score();
}

async function score() {
  const question = (asked += 1);
  const labels = [...new Set(acts.map((act) => act.label))];
  const known = labels.filter(isOn);
  const absent = labels.filter((label) => !isOn(label));
  const found = await ask("score", { photo: state.photo, known, absent });
  if (!found || question !== asked) return;
  rank(found);
  draw();
}

function draw() {
  const focused = document.activeElement?.dataset?.key;
  const doubtful = state.issues.map((issue) => issue.label);
  const labels = everyLabel().filter((label) => !doubtful.includes(label));
  const own = labels.filter(decided);
  const rest = labels.filter((label) => !decided(label));
  const shown = rest.filter((label, place) => place < SHOWN || isOn(label));
  const keys = [...doubtful, ...shown].slice(0, 10);
  if (keys.join("\n") !== numbered.join("\n")) {
    if (!before.length || performance.now() - movedAt > REACTION) before = numbered;
    [numbered, movedAt] = [keys, performance.now()];
  }
  drawIssues();
  $("yours").replaceChildren(...own.map(chip));
  $("yours").hidden = !own.length;
  $("chips").replaceChildren(...shown.map(chip));
  const more = rest.length - shown.length;
  $("more").textContent = more ? `${more.toLocaleString("en")} more labels: type to find them` : "";
  $("more").hidden = !more;
  if (!everyLabel().length) {
    $("more").textContent = "There are no labels yet: type the first one and press Enter.";
    $("more").hidden = false;
  }
  if (focused !== undefined) {
    [...document.querySelectorAll("[data-key]")].find((e) => e.dataset.key === focused)?.focus();
  }
  suggest();
}

function make(tag, text, attributes = {}) {
  const element = document.createElement(tag);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

const percent = (p) => (p > 0 && p < 0.01 ? "<1 %" : p < 1 && p > 0.99 ? ">99 %" : `${Math.round(100 * p)} %`);

function chip(label) {
  const button = make("button", "", { type: "button", class: "chip", "aria-pressed": isOn(label) });
  const p = probability.get(label);
  const key = numbered.indexOf(label);
  if (key >= 0) button.append(make("kbd", (key + 1) % 10, { "aria-hidden": true }));
  const mark = isOn(label) ? "✓" : decided(label) ? "✗" : "";
  if (mark) button.append(make("span", mark, { "aria-hidden": true }));
  button.append(make("span", label, { dir: "auto" }));
  if (p != null) {
    button.append(make("small", percent(p)));
    button.style.setProperty("--p", `${100 * p}%`);
  }
  activate(button, label, () => toggle(label));
  return button;
}

// A click must not take the focus: Enter would then press the chip instead of accepting.
function activate(button, label, action, key = label) {
  button.dataset.key = key;
  button.addEventListener("mousedown", (event) => event.preventDefault());
  button.addEventListener("click", action);
  button.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && look(label));
  button.addEventListener("pointerleave", () => look(null));
  button.addEventListener("focus", () => look(label));
  button.addEventListener("blur", () => look(null));
}

function drawIssues() {
  const boxes = state.issues.map(({ label, kind, probability: right }, place) => {
    const box = make("div", "", { class: "issue", role: "group", "aria-label": `Doubtful: ${label}` });
    const said = kind === "surplus" ? "is annotated" : "is not annotated";
    const text = make("p", "");
    text.append(make("b", label, { dir: "auto" }), ` ${said}. The network gives this ${percent(right)}.`);
    const wasOn = kind === "surplus";
    const row = make("div", "", { class: "choice" });
    for (const [on, name] of [[wasOn, "Keep"], [!wasOn, wasOn ? "Correct: not there" : "Correct: it is there"]]) {
      const button = make("button", name, { type: "button", "aria-pressed": isOn(label) === on });
      if (on !== wasOn) button.append(" ", make("kbd", place + 1, { "aria-hidden": true }));
      activate(button, label, () => decide(label, on), `${name}: ${label}`);
      row.append(button);
    }
    box.append(text, row);
    return box;
  });
  $("issues").replaceChildren(...boxes);
  $("issues").hidden = !boxes.length;
}

// --- where the network saw a label ---------------------------------------------------------------

let looking = null;
async function look(label) {
  looking = label;
  if (label === null) {
    $("heat").hidden = true;
    return;
  }
  await new Promise((resolve) => setTimeout(resolve, 80)); // not for every chip on the mouse's way
  if (looking !== label || probability.get(label) == null) return;
  const rows = await ask("seen", { photo: state.photo, label });
  if (!rows || looking !== label) return;
  const canvas = $("heat");
  [canvas.width, canvas.height] = [rows[0].length, rows.length];
  const context = canvas.getContext("2d");
  const picture = context.createImageData(canvas.width, canvas.height);
  rows.flat().forEach((heat, i) => picture.data.set([255, 150 - 110 * heat, 0, 200 * heat ** 2], 4 * i));
  context.putImageData(picture, 0, 0);
  canvas.hidden = false;
}

// --- from photo to photo ------------------------------------------------------------------------

async function next() {
  const found = await ask("next", { window: windowId, skip: skipped });
  if (!found) return;
  if (found.photo !== null) return show(found);
  finish(found.progress);
}

// No photo waits: the end, or the first ratings are not there yet.
function finish({ photos, verified, rated, is_rating: rating }) {
  if (state) drafts.set(state.photo, acts);
  [state, looking, acts] = [null, null, []];
  asked += 1;
  document.querySelectorAll("#stage, #panel, nav").forEach((e) => (e.hidden = true));
  $("end").hidden = false;
  history.replaceState(null, "", " ");
  if (rating) {
    $("endtitle").textContent = "Looking for doubtful annotations";
    $("endtext").textContent = `${rated.toLocaleString("en")} photos looked through so far`;
    setTimeout(() => state || next(), 1000);
    return;
  }
  $("endtitle").textContent = "Done";
  const left = skipped.length ? ` ${skipped.length} skipped: reload this page to see them again.` : "";
  $("endtext").textContent = `${verified.toLocaleString("en")} of ${photos.toLocaleString("en")} photos are confirmed and saved.${left} Backspace goes back. Ctrl-C in the terminal ends annotate.py.`;
}

// One after the other: while an answer is on its way, no key means anything.
const alone = (action) => async () => {
  if (busy) return;
  busy = true;
  try {
    await action();
  } finally {
    busy = false;
  }
};

async function pass() {
  if (!state) return;
  skipped.push(state.photo);
  visited.push(state.photo);
  await next();
}

const skip = alone(pass);

const accept = alone(async () => {
  if (state?.error) return pass();
  if (!state || $("frame").dataset.shown === undefined) return;
  if ($("text").value.trim()) return notice("Press Enter to take the label that you typed, or Esc to drop it.");
  const { photo, version } = state;
  const labels = everyLabel().filter(isOn);
  const saved = await ask("answer", { window: windowId, photo, version, labels });
  if (!saved) return;
  answered.push({ photo, acts, version: saved.version });
  visited.push(photo);
  [state.labels, state.version, acts] = [labels, saved.version, []];
  await next();
});

const back = alone(async () => {
  if (!visited.length) return;
  const found = await ask("open", { window: windowId, photo: visited.at(-1) });
  if (!found) return;
  visited.pop();
  show(found);
});

const undo = alone(async () => {
  if (acts.length) {
    acts.pop();
    draw();
    score();
    return;
  }
  const last = answered.pop();
  if (!last) return;
  const found = await ask("undo", { window: windowId, photo: last.photo, version: last.version });
  if (!found) return;
  if (visited.at(-1) === last.photo) visited.pop();
  drafts.set(last.photo, last.acts);
  show(found);
});

// --- keys and typing ----------------------------------------------------------------------------

function matches() {
  const text = $("text").value.trim().replace(/\s+/g, " ").toLowerCase();
  if (!text || !state) return [];
  const rank = (label) => {
    const own = label.toLowerCase();
    if (own === text) return 0;
    if (own.startsWith(text)) return 1;
    return own.includes(text) ? 2 : 3;
  };
  const found = everyLabel().filter((label) => rank(label) < 3);
  found.sort((a, b) => rank(a) - rank(b)); // stable: the probable ones stay first
  const options = found.slice(0, 8).map((label) => ({ label, text: `${isOn(label) ? "✓ " : ""}${label}` }));
  if (!found.length || rank(found[0]) > 0) {
    const label = $("text").value.trim().replace(/\s+/g, " ");
    options.push({ label, text: `New label: ${label}` });
  }
  return options;
}

function suggest() {
  const options = matches();
  choice = Math.min(choice, Math.max(options.length - 1, 0));
  $("found").replaceChildren(
    ...options.map(({ label, text }, place) => {
      const row = make("li", text, { role: "option", id: `option${place}`, "aria-selected": place === choice, dir: "auto" });
      row.addEventListener("mousedown", (event) => event.preventDefault());
      row.addEventListener("click", () => take(label));
      return row;
    }),
  );
  $("found").hidden = !options.length;
  $("text").setAttribute("aria-expanded", Boolean(options.length));
  $("text").setAttribute("aria-activedescendant", options.length ? `option${choice}` : "");
}

function take(label) {
  $("text").value = "";
  choice = 0;
  toggle(label);
  suggest();
}

$("text").addEventListener("input", () => {
  choice = 0;
  suggest();
});
$("photo").addEventListener("load", () => {
  $("frame").style.setProperty("--ratio", $("photo").naturalWidth / $("photo").naturalHeight);
  $("frame").dataset.shown = "";
});
$("photo").addEventListener("error", () => state && fail(`${state.name} cannot be read as an image`));
$("back").addEventListener("click", back);
$("undo").addEventListener("click", undo);
$("skip").addEventListener("click", skip);
$("accept").addEventListener("click", accept);

document.addEventListener("keydown", (event) => {
  const { key } = event;
  const text = $("text");
  const empty = !text.value;
  const undoes = (key === "U" && empty) || (key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey) && empty);
  if (event.isComposing || event.altKey || ((event.ctrlKey || event.metaKey) && !undoes)) return;
  const run = (action) => {
    event.preventDefault();
    if (!event.repeat) action();
  };
  if (undoes) return run(undo);
  if (key === "Escape") {
    text.value = "";
    suggest();
    return text.blur();
  }
  if (!empty) {
    const options = matches();
    if (key === "Enter") return run(() => options.length && take(options[choice].label));
    if (key === "ArrowDown" || key === "ArrowUp") {
      event.preventDefault();
      choice = (choice + (key === "ArrowDown" ? 1 : -1) + options.length) % (options.length || 1);
      return suggest();
    }
  } else {
    const onButton = event.target instanceof HTMLButtonElement && event.target.matches(":focus-visible");
    if (key === "Enter" && !onButton) return run(accept);
    if (key === "Backspace") return run(back);
    if (key === "ArrowRight") return run(skip);
    if (/^[0-9]$/.test(key)) {
      return run(() => {
        const place = (Number(key) + 9) % 10;
        const keys = before.length && performance.now() - movedAt < REACTION ? before : numbered;
        if (keys[place] !== undefined) toggle(keys[place]);
      });
    }
  }
  const types = key.length === 1 && !(key === " " && event.target instanceof HTMLButtonElement);
  if (types && document.activeElement !== text && state) text.focus();
});

// --- start --------------------------------------------------------------------------------------

async function start() {
  const photo = Number.parseInt(location.hash.slice(1), 10);
  const found = Number.isInteger(photo) ? await ask("open", { window: windowId, photo }) : null;
  if (found) return show(found);
  notice("");
  await next();
}
start();
