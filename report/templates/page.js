// A click on a column's name sorts its table: numbers from high to low, text from A to Z. A second
// click reverses the order. Undefined metrics stay at the end.
for (const button of document.querySelectorAll(".sortable th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const table = head.closest("table");
    const isText = head.classList.contains("text");
    const previous = head.getAttribute("aria-sort");
    const first = isText ? "ascending" : "descending";
    const second = isText ? "descending" : "ascending";
    const order = previous === first ? second : first;
    for (const other of head.parentElement.children) {
      if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
    }
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const cellOf = (row) => row.children[head.cellIndex];
    const compare = (a, b) => {
      if (isText) return sign * cellOf(a).textContent.localeCompare(cellOf(b).textContent);
      const [x, y] = [cellOf(a).dataset.value, cellOf(b).dataset.value];
      if (x === "" || y === "") return (x === "") - (y === "");
      return sign * (x - y);
    };
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort(compare));
  });
}

// A box that can be scrolled fades out where it goes on, and a line below it says so: on a phone
// nothing else does.
const showEdges = (box) => {
  const wide = box.scrollWidth > box.clientWidth + 1;
  box.classList.toggle("more-right", box.scrollLeft + box.clientWidth < box.scrollWidth - 1);
  box.classList.toggle("more-below", box.scrollTop + box.clientHeight < box.scrollHeight - 1);
  box.nextElementSibling.hidden = !wide;
};
for (const box of document.querySelectorAll(".scroll, .gallery")) {
  const hint = document.createElement("p");
  hint.className = "note hint";
  hint.textContent = "Scroll sideways to see more →";
  hint.setAttribute("aria-hidden", "true");
  box.after(hint);
  box.addEventListener("scroll", () => showEdges(box), { passive: true });
  new ResizeObserver(() => showEdges(box)).observe(box);
}
