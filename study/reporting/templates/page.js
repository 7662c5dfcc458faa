// Sorts a table by the clicked column: numbers by their data-value, then text; empty cells always last.
for (const head of document.querySelectorAll(".sortable th")) {
  head.tabIndex = 0;
  const sort = () => {
    const table = head.closest("table"), body = table.tBodies[0], column = head.cellIndex;
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
    const compare = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      const [p, q] = [Number(x), Number(y)];
      const order = isNaN(p) || isNaN(q) ? x.localeCompare(y) : p - q;
      return down ? -order : order;
    };
    body.append(...[...body.rows].sort(compare));
  };
  head.addEventListener("click", sort);
  head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
}

// A link to a folded section unfolds it.
const unfold = () => {
  const details = document.getElementById(location.hash.slice(1))?.querySelector(":scope > details");
  if (details) details.open = true;
};
addEventListener("hashchange", unfold);
unfold();

// Shows the values of a panel's curves at the epoch under the pointer.
for (const svg of document.querySelectorAll("svg[data-curves]")) {
  const { box, x, xlabel, lines } = JSON.parse(svg.dataset.curves);
  const holder = document.createElement("div");
  holder.className = "curves";
  svg.replaceWith(holder);
  holder.append(svg);
  const rule = holder.appendChild(document.createElement("i"));
  const tip = holder.appendChild(document.createElement("div"));
  tip.className = "tip";
  const steps = [...new Set(lines.flatMap((line) => line.points.map((point) => point[0])))].sort((a, b) => a - b);
  const hide = () => { rule.hidden = tip.hidden = true; };
  const show = (event) => {
    const area = svg.getBoundingClientRect();
    const left = area.left + box[0] * area.width, width = box[2] * area.width;
    const at = (event.clientX - left) / width;
    if (at < -0.03 || at > 1.03) return hide();
    const value = x[0] + at * (x[1] - x[0]);
    const step = steps.reduce((a, b) => (Math.abs(b - value) < Math.abs(a - value) ? b : a));
    const rows = lines
      .map((line) => ({ ...line, found: line.points.find((point) => point[0] === step)?.[1] }))
      .filter((line) => line.found !== undefined)
      .sort((a, b) => b.found - a.found);
    tip.replaceChildren(`${xlabel} ${step}`);
    for (const line of rows) {
      const row = tip.appendChild(document.createElement("div"));
      const dot = row.appendChild(document.createElement("i"));
      dot.style.background = `var(${line.color})`;
      row.append(line.found.toFixed(3), " ", line.name);
    }
    rule.hidden = tip.hidden = false;
    const place = box[0] + (box[2] * (step - x[0])) / (x[1] - x[0]);
    rule.style.cssText = `left: ${100 * place}%; top: ${100 * box[1]}%; height: ${100 * box[3]}%`;
    // Beside the rule, on the side with more room.
    const px = place * area.width, far = place > 0.5;
    tip.style.cssText = `top: ${100 * box[1]}%; ` + (far ? `right: ${area.width - px + 8}px` : `left: ${px + 8}px`)
      + `; max-width: ${Math.max(px, area.width - px) - 12}px`;
  };
  hide();
  for (const kind of ["pointermove", "pointerdown"]) svg.addEventListener(kind, show);
  // A finger that is lifted leaves, too; what it showed stays.
  svg.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hide(); });
}
