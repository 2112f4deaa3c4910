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
