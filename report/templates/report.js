// Filters, a page for each label, and large photos. Everything shown is a copy of what the report
// holds already: a photo's figure, a label's row and the points of its curve.
const PER_PAGE = 24;
const report = document.getElementById("report");
const gallery = document.querySelector("#photos .gallery");
for (const figure of [...document.querySelectorAll(".strip .photo")].reverse()) {
  gallery.prepend(figure.cloneNode(true));
}
const photos = [...gallery.children];

const itemOf = (figure, label) => figure.querySelector(`.bars [data-label="${label}"]`);
const isShown = (element) => !element.closest("[hidden]");

// --- filters ---

const filters = document.querySelector("form.filters");
const more = document.querySelector(".show-more");
let most = PER_PAGE;

const matches = (figure) => {
  const [kind, label] = [filters.kind.value, filters.tag.value];
  const text = filters.text.value.trim().toLowerCase();
  const items = label ? [itemOf(figure, label)] : [...figure.querySelectorAll(".bars li")];
  const wanted = (item) => item && (kind ? item.className === kind : item.className !== "other");
  if ((kind || label) && !items.some(wanted)) return false;
  const named = [...figure.querySelectorAll(".file, .bars li:not(.other) .what")];
  return named.some((element) => element.textContent.toLowerCase().includes(text));
};

const filter = () => {
  let found = 0;
  for (const figure of photos) figure.hidden = !matches(figure) || ++found > most;
  more.hidden = found <= most;
  document.querySelector("#photos .count").textContent = `${found.toLocaleString("en")} found.`;
  gallery.scrollLeft = 0;
  showEdges(gallery);
};
filters.addEventListener("input", () => {
  most = PER_PAGE;
  filter();
});
filters.addEventListener("submit", (event) => event.preventDefault());
more.addEventListener("click", () => {
  const first = photos.filter(isShown).length;
  most += PER_PAGE;
  filter();
  photos.filter(isShown)[first].querySelector("button").focus();
});
filter();

const rows = [...document.querySelectorAll("#labels tbody tr")];
document.getElementById("find").addEventListener("input", (event) => {
  const text = event.target.value.trim().toLowerCase();
  for (const row of rows) row.hidden = !row.dataset.name.toLowerCase().includes(text);
});

// --- the page of a label, at #label=NAME ---

const page = document.getElementById("label");
const title = document.title;
let left = null; // where the report was left for the page of a label: hash, scroll, link

const addressOf = (row) => `#label=${encodeURIComponent(row.dataset.name)}`;

const rowOf = (hash) => {
  if (!hash.startsWith("#label=")) return null;
  try {
    const name = decodeURIComponent(hash.slice("#label=".length));
    return rows.find((row) => row.dataset.name === name) ?? null;
  } catch {
    return null; // not an address of this page
  }
};

const fillGallery = (section, row) => {
  const { kind } = section.dataset;
  const { label, [kind]: total } = row.dataset;
  const found = photos.filter((figure) => itemOf(figure, label)?.className === kind);
  const value = (figure) => Number(itemOf(figure, label).dataset.value);
  found.sort((a, b) => (kind === "missed" ? value(a) - value(b) : value(b) - value(a)));
  const copies = found.slice(0, PER_PAGE).map((figure) => figure.cloneNode(true));
  for (const copy of copies) {
    copy.hidden = false;
    itemOf(copy, label).classList.add("this");
  }
  const shown = section.querySelector(".gallery");
  shown.replaceChildren(...copies);
  shown.scrollLeft = 0;
  section.hidden = total === "0";
  const all = `${Number(total).toLocaleString("en")} photo${total === "1" ? "" : "s"}`;
  section.querySelector(".count").textContent =
    copies.length < total ? `${copies.length} of ${all} shown` : all;
  showEdges(shown);
};

const fillPage = (row) => {
  const label = row.dataset.label;
  page.querySelector("h1").textContent = row.dataset.name;
  document.title = `${row.dataset.name} – ${title}`;
  page.querySelector(".about").replaceChildren(
    ...row.dataset.about.split("\n").map((sentence) => {
      const paragraph = document.createElement("p");
      paragraph.textContent = sentence;
      return paragraph;
    }),
  );
  for (const section of page.querySelectorAll("[data-kind]")) fillGallery(section, row);
  const line = page.querySelector("svg .line.a");
  line.setAttribute("points", document.getElementById(`curve${label}`).getAttribute("points"));
  const dot = page.querySelector("svg .dot");
  const box = line.ownerSVGElement.dataset;
  const { precision, recall } = row.dataset;
  dot.setAttribute("cx", Number(box.left) + ((box.right - box.left) * recall) / 100);
  dot.setAttribute("cy", Number(box.bottom) - ((box.bottom - box.top) * precision) / 100);
  dot.style.display = recall === undefined ? "none" : "";
  const order = [...document.querySelectorAll("#labels tbody tr")]; // as the table is sorted
  const at = order.indexOf(row);
  for (const [name, other] of [["previous", order[at - 1]], ["next", order[at + 1]]]) {
    const link = page.querySelector(`nav .${name}`);
    link.hidden = !other;
    if (!other) continue;
    link.href = addressOf(other);
    link.querySelector("span").textContent = other.dataset.name;
  }
};

const route = () => {
  const row = rowOf(location.hash);
  const wasReport = !report.hidden;
  if (row) {
    if (wasReport) left = { hash: lastHash, top: lastTop, link: document.activeElement };
    report.hidden = true;
    page.hidden = false;
    fillPage(row);
    scrollTo(0, 0);
    page.querySelector("h1").focus({ preventScroll: true });
  } else if (!wasReport) {
    report.hidden = false;
    page.hidden = true;
    document.title = title;
    if (left && left.hash === location.hash) {
      scrollTo({ top: left.top, behavior: "instant" });
      left.link.focus({ preventScroll: true });
    } else {
      document.getElementById(location.hash.slice(1))?.scrollIntoView({ behavior: "instant" });
    }
  }
  lastHash = location.hash;
};
let lastHash = location.hash;
let lastTop = 0;
addEventListener("scroll", () => {
  if (!report.hidden) lastTop = scrollY;
});
addEventListener("hashchange", route);
route();

// --- large photos ---

const viewer = document.getElementById("viewer");
let opened = null; // the figure in a gallery that is shown large

const others = (figure) => [...figure.parentElement.children].filter(isShown);

const show = (figure) => {
  opened = figure;
  const copy = figure.cloneNode(true);
  const picture = copy.querySelector(".open img");
  copy.querySelector(".open").replaceWith(picture);
  viewer.querySelector(".shown").replaceChildren(copy);
  const list = others(figure);
  const at = list.indexOf(figure);
  viewer.querySelector(".place").textContent = `${at + 1} of ${list.length}`;
  viewer.querySelector(".previous").disabled = at === 0;
  viewer.querySelector(".next").disabled = at === list.length - 1;
};

const step = (by) => {
  const list = others(opened);
  const figure = list[list.indexOf(opened) + by];
  if (figure) show(figure);
};

document.addEventListener("click", (event) => {
  const button = event.target.closest(".open");
  if (button) {
    show(button.closest(".photo"));
    viewer.showModal();
  } else if (event.target === viewer || event.target.closest("#viewer .close")) {
    viewer.close(); // the viewer itself is its edge and the page behind it
  }
});
viewer.querySelector(".previous").addEventListener("click", () => step(-1));
viewer.querySelector(".next").addEventListener("click", () => step(1));
viewer.addEventListener("close", () => {
  viewer.querySelector(".shown").replaceChildren();
  opened.querySelector(".open").focus();
});
document.addEventListener("keydown", (event) => {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!by || event.altKey || event.ctrlKey || event.metaKey) return;
  if (viewer.open) {
    step(by);
    event.preventDefault();
  } else if (event.target.matches(".gallery .open")) {
    const list = others(event.target.closest(".photo"));
    const figure = list[list.indexOf(event.target.closest(".photo")) + by];
    figure?.querySelector(".open").focus();
    event.preventDefault();
  }
});
