"use strict";
// Sends a photo to /predict, shows the labels, and asks again with those that the user knows.
const SHOWN = 24; // labels, the most probable ones
const NEXT = { "": "known", known: "absent", absent: "" };
const $ = (id) => document.getElementById(id);
let photo = null; // the file
let facts = {}; // label -> "known" or "absent"
let asked = 0; // number of the last question: answers to older ones are not shown

async function ask() {
  const number = ++asked;
  const form = new FormData();
  form.append("images", photo, photo.name);
  for (const [label, fact] of Object.entries(facts)) if (fact) form.append(fact, label);
  say("Looking …");
  let found;
  try {
    const response = await fetch("predict", { method: "POST", body: form });
    found = await response.json();
    if (!response.ok) throw new Error(found.error);
  } catch (error) {
    if (number === asked) fail(error instanceof TypeError ? "The server does not answer." : error.message);
    return;
  }
  if (number === asked) show(found[0]);
}

function say(text, isWrong = false) {
  $("said").textContent = text;
  $("said").classList.toggle("wrong", isWrong);
}

function fail(text) {
  say(text, true);
  if (!Object.values(facts).some(Boolean)) $("chips").replaceChildren();
}

function show(result) {
  const predicted = new Set(result.predicted);
  say(predicted.size ? `Predicted: ${result.predicted.join(", ")}` : "No label is predicted.");
  const labels = Object.keys(result.labels);
  const given = labels.filter((label) => facts[label]);
  const others = labels.filter((label) => !facts[label]).slice(0, SHOWN);
  $("chips").replaceChildren(...[...given, ...others].map((label) => chip(label, result.labels[label], predicted)));
  $("hint").hidden = false;
}

function chip(label, probability, predicted) {
  const button = document.createElement("button");
  const name = document.createElement("span");
  const percent = document.createElement("small");
  const fact = facts[label] || "";
  button.type = "button";
  button.className = "chip";
  button.dataset.fact = fact;
  button.classList.toggle("predicted", predicted.has(label));
  button.style.setProperty("--p", `${100 * probability}%`);
  name.dir = "auto";
  name.textContent = label;
  percent.textContent = fact ? { known: "is there", absent: "is not there" }[fact] : `${(100 * probability).toFixed(1)} %`;
  button.append(name, percent);
  button.addEventListener("click", () => {
    facts[label] = NEXT[fact];
    ask();
  });
  return button;
}

function choose(file) {
  if (!file) return;
  photo = file;
  facts = {};
  $("chips").replaceChildren();
  const reader = new FileReader();
  reader.addEventListener("load", () => {
    $("photo").src = reader.result;
    $("photo").hidden = false;
    document.querySelector("#drop span").hidden = true;
  });
  reader.readAsDataURL(file);
  ask();
}

$("file").addEventListener("change", () => choose($("file").files[0]));
for (const [kind, isOver] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", isOver);
    if (kind === "drop") choose(event.dataTransfer.files[0]);
  });
}
