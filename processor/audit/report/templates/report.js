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
  const groups = [...place.querySelectorAll(".group")];
  const texts = items.map((item) => item.textContent.toLowerCase());
  let due = 0;
  const filter = () => {
    const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let left = 0;
    items.forEach((item, at) => {
      item.hidden = !wanted.every((word) => texts[at].includes(word));
      left += !item.hidden;
    });
    for (const group of groups) {
      const all = [...group.querySelectorAll(place.dataset.filter)];
      const seen = all.filter((item) => !item.hidden);
      group.hidden = seen.length === 0;
      for (const more of group.querySelectorAll(":scope > .more"))
        more.open = wanted.length > 0 && seen.some((item) => more.contains(item));
    }
    said.textContent = wanted.length ? left + " of " + items.length : "";
  };
  input.addEventListener("input", () => {
    clearTimeout(due);
    if (items.length < 500) filter();
    else due = setTimeout(filter, 100); // not at every letter
  });
  tools.append(label, input, said);
  place.prepend(tools);
}
