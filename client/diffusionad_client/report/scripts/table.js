// The table of all images. Only the rows in sight exist, so that a hundred thousand scroll as ten do.

const ROW = 34; // pixels, as in the style
const PRINTED_ROWS = 40;

function startTable() {
  const frame = byId("rows"), body = byId("rows-body"), head = byId("rows-head");
  const columns = [
    {key: "place", title: "#", cell: place => whole(place + 1), number: true},
    {key: "name", title: "image", cell: place => html("bdi", {}, data.names[place])},
    ...several.map(field => ({
      key: keyOf(field), title: field.name,
      cell: place => html("bdi", {}, field.codes[place] < 0 ? "" : field.values[field.codes[place]]),
    })),
    {key: "verdict", title: "verdict", cell: place => badge(verdicts[place])},
    {key: "score", title: "score", cell: place => digits(scores[place]), number: true},
    ...numbers.map(({key, title, help, scale, decimals, values}) => ({
      key, title, help, number: true,
      cell: place => (isFinite(values[place]) ? (scale * values[place]).toFixed(decimals) : ""),
    })),
  ];
  const widths = {place: "72px", verdict: "104px", score: "92px", area_percent: "84px", request_s: "84px", name: "minmax(180px, 3fr)"};
  const template = columns.map(({key}) => widths[key] ?? "minmax(90px, 1fr)").join(" ");
  let active = 0; // which of the view has the focus
  let printing = false;

  const headings = columns.map(column => {
    const button = html("button", {type: "button", class: "sort", title: column.help ?? null, onclick: () => choose({
      key: column.key,
      descending: chosen.key === column.key ? !chosen.descending : ["score", "verdict", "area_percent", "request_s"].includes(column.key),
    })}, column.title);
    return html("div", {role: "columnheader", class: column.number && "right"}, button);
  });
  head.append(...headings);
  head.style.gridTemplateColumns = template;
  frame.setAttribute("aria-colcount", columns.length);

  function draw() {
    const shown = view();
    frame.setAttribute("aria-rowcount", shown.length + 1);
    active = Math.min(active, Math.max(shown.length - 1, 0));
    const first = printing ? 0 : Math.max(Math.floor(frame.scrollTop / ROW) - 8, 0);
    const last = printing ? Math.min(shown.length, PRINTED_ROWS)
      : Math.min(first + Math.ceil(frame.clientHeight / ROW) + 16, shown.length);
    const hadFocus = body.contains(document.activeElement);
    body.style.height = printing ? "auto" : `${shown.length * ROW}px`;
    const rows = [];
    for (let n = first; n < last; n++) {
      const row = html("div", {
        role: "row", class: "row", "aria-rowindex": n + 2, tabindex: n === active ? 0 : -1, "data-n": n,
      }, ...columns.map(column => html("div", {role: "cell", class: column.number && "right"}, column.cell(shown[n]))));
      row.style.gridTemplateColumns = template;
      if (!printing) row.style.top = `${n * ROW}px`;
      rows.push(row);
    }
    body.replaceChildren(...rows);
    if (hadFocus) body.querySelector("[tabindex='0']")?.focus({preventScroll: true});
    headings.forEach((heading, n) => {
      if (columns[n].key === chosen.key) heading.setAttribute("aria-sort", chosen.descending ? "descending" : "ascending");
      else heading.removeAttribute("aria-sort");
    });
    byId("rows-cut").hidden = !printing || shown.length <= PRINTED_ROWS;
    byId("rows-cut").textContent = `The first ${PRINTED_ROWS} of ${whole(shown.length)}.`;
  }

  function focus(n) {
    active = Math.min(Math.max(n, 0), view().length - 1);
    if (active < 0) return;
    const top = active * ROW;
    const below = top + ROW + head.offsetHeight - frame.clientHeight;
    if (top < frame.scrollTop) frame.scrollTop = top;
    else if (below > frame.scrollTop) frame.scrollTop = below;
    draw();
    body.querySelector("[tabindex='0']")?.focus({preventScroll: true});
  }

  body.addEventListener("keydown", event => {
    const page = Math.max(Math.floor(frame.clientHeight / ROW) - 2, 1);
    const to = {
      ArrowDown: active + 1, ArrowUp: active - 1, PageDown: active + page, PageUp: active - page,
      Home: 0, End: view().length - 1,
    }[event.key];
    if (to !== undefined) focus(to);
    else if (event.key === "Enter") openViewer(active);
    else return;
    event.preventDefault();
  });
  body.addEventListener("click", event => {
    const row = event.target.closest(".row");
    if (!row) return;
    active = +row.dataset.n;
    openViewer(active);
  });
  let awaited = false;
  frame.addEventListener("scroll", () => {
    if (awaited) return;
    awaited = true;
    requestAnimationFrame(() => { awaited = false; draw(); });
  });
  // Other thresholds, with the same images in sight, change only what the rows say of verdicts.
  function judge() {
    const shown = view();
    for (const row of body.children) row.querySelector(".badge").replaceWith(badge(verdicts[shown[row.dataset.n]]));
  }

  listeners.push(what => {
    if (what.has("view") || what.has("scope")) { frame.scrollTop = 0; active = 0; }
    else if (chosen.verdict === null) return judge();
    draw();
  });
  beforePrinting.push(yes => { printing = yes; draw(); });
}
