
"use strict";
// Headings with data-sort become buttons that sort their table; empty cells stay last. Without scripts it stays a table.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const numeric = (cell) => cell.dataset.value !== undefined;
  const key = (cell) => (numeric(cell) ? parseFloat(cell.dataset.value) : cell.textContent.trim());
  const empty = (value) => value === "" || Number.isNaN(value);
  heads.forEach((head, column) => {
    if (head.dataset.sort === undefined) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const first = body.rows.length && numeric(body.rows[0].cells[column]) ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      const sign = order === "ascending" ? 1 : -1;
      const rows = [...body.rows].map((row) => [key(row.cells[column]), row]);
      rows.sort(([a], [b]) => {
        if (empty(a) || empty(b)) return empty(a) - empty(b);
        return sign * (typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true }));
      });
      body.append(...rows.map(([, row]) => row));
      for (const each of heads) each.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order);
    });
  });
}
