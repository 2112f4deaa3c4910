// The user keeps or corrects annotations; a button saves the label table with the corrections.
const table = JSON.parse(document.getElementById("table").textContent);
const issues = [...document.querySelectorAll(".issue")];
const counter = document.getElementById("counter");
const undoButton = document.getElementById("undo");
let made = load(); // [issue, choice] in the order made: a later one replaces an earlier one
let kept = true; // in the browser's storage
let current = 0;

function load() {
  try {
    const known = ([issue, choice]) => issues[issue] && ["keep", "correct"].includes(choice);
    return JSON.parse(localStorage.getItem(table.key)).filter(known);
  } catch {
    return []; // nothing is stored, or nothing may be
  }
}

function show() {
  const choices = new Map(made);
  issues.forEach((issue, i) => {
    for (const button of issue.querySelectorAll("[data-choice]")) {
      const chosen = choices.get(i) === button.dataset.choice;
      button.setAttribute("aria-pressed", chosen);
      issue.classList.toggle(button.dataset.choice, chosen);
    }
  });
  const corrected = [...choices.values()].filter((choice) => choice === "correct").length;
  counter.textContent = `${choices.size} of ${issues.length} looked at, ${corrected} corrected`;
  undoButton.disabled = made.length === 0;
}

function store() {
  try {
    localStorage.setItem(table.key, JSON.stringify(made));
  } catch {
    kept = false;
  }
  document.getElementById("not_kept").hidden = kept;
  show();
}

function choose(issue, choice) {
  if (new Map(made).get(issue) !== choice) made.push([issue, choice]);
  store();
}

function undo() {
  if (made.length === 0) return;
  const [issue] = made.pop();
  store();
  moveTo(issue);
}

function mark(issue) {
  issues[current].classList.remove("current");
  current = issue;
  issues[current].classList.add("current");
}

function moveTo(issue) {
  if (!issues[issue]) return;
  mark(issue);
  issues[issue].focus({ preventScroll: true });
  issues[issue].scrollIntoView({ block: "nearest" });
}

// as Python's csv module writes a cell
function cell(text) {
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function correctedTable() {
  const sets = table.rows.map(([, labels]) => labels);
  const choices = new Map(made);
  table.issues.forEach(([row, label, annotation], i) => {
    if (choices.get(i) !== "correct") return;
    const others = sets[row].filter((other) => other !== label);
    sets[row] = annotation === "missing" ? [...others, label] : others;
  });
  const rows = table.rows.map(([name, , ...split], i) => {
    const labels = sets[i].map((label) => table.labels[label]).join(table.separator);
    return [name, labels, ...split];
  });
  const lines = [table.header, ...rows].map((cells) => cells.map(cell).join(",") + "\r\n");
  return table.start + lines.join("");
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([correctedTable()], { type: "text/csv" }));
  link.download = "labels.corrected.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

issues.forEach((issue, i) => {
  issue.addEventListener("focusin", () => mark(i));
  issue.addEventListener("click", () => mark(i));
  for (const button of issue.querySelectorAll("[data-choice]")) {
    button.addEventListener("click", () => choose(i, button.dataset.choice));
  }
});
undoButton.addEventListener("click", undo);
document.getElementById("save").addEventListener("click", save);

const keys = {
  k: () => decide("keep"),
  c: () => decide("correct"),
  u: undo,
  ArrowDown: () => moveTo(current + 1),
  ArrowRight: () => moveTo(current + 1),
  ArrowUp: () => moveTo(current - 1),
  ArrowLeft: () => moveTo(current - 1),
};

// A choice leads to the next issue. Nothing is decided on one that is out of sight.
function decide(choice) {
  const box = issues[current].getBoundingClientRect();
  const seen = box.bottom > 150 && box.top < innerHeight - 150;
  if (seen) choose(current, choice);
  moveTo(seen && issues[current + 1] ? current + 1 : current);
}

document.addEventListener("keydown", (event) => {
  const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action || event.ctrlKey || event.metaKey || event.altKey || !issues.length) return;
  event.preventDefault();
  if (!event.repeat || event.key.length > 1) action();
});
addEventListener("beforeunload", (event) => {
  if (!kept && made.length) event.preventDefault();
});
show();
const open = issues.findIndex((_, i) => !new Map(made).has(i));
if (made.length) moveTo(Math.max(0, open)); // where the user stopped
else if (issues.length) mark(0);
