"use strict";
// Sorting and filtering, nothing else. Without this script the page shows the same and has no dead buttons.
for (const table of document.querySelectorAll("table.sort")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent.trim();
      const compare = (a, b) => {
        const [x, y] = [key(a), key(b)];
        const numbers = x !== "" && y !== "" && !isNaN(x) && !isNaN(y);
        return numbers ? x - y : x < y ? -1 : x > y ? 1 : 0;
      };
      body.append(...[...body.rows].sort((a, b) => (up ? compare(a, b) : compare(b, a))));
    });
  });
}
for (const place of document.querySelectorAll("[data-filter]")) {
  const items = [...place.querySelectorAll(place.dataset.filter)];
  if (items.length < 6) continue; // a handful is faster read than filtered
  const tools = document.createElement("div");
  const label = document.createElement("label");
  const input = document.createElement("input");
  const said = document.createElement("output");
  tools.className = "tools";
  input.type = "search";
  input.id = "filter-" + place.id;
  label.htmlFor = input.id;
  label.textContent = "Filter";
  input.addEventListener("input", () => {
    const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let left = 0;
    for (const item of items) {
      const text = item.textContent.toLowerCase();
      item.hidden = !wanted.every((word) => text.includes(word));
      left += !item.hidden;
    }
    said.textContent = wanted.length ? left + " of " + items.length : "";
  });
  tools.append(label, input, said);
  place.prepend(tools);
}
