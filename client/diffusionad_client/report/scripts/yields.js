// Yield over the run and by field, and the figures of each class where folders are labels.

const COURSE = {width: 960, height: 130, left: 56, right: 24, top: 10, bottom: 34};
const COURSE_BARS = 60;
const MOST_GROUPS = 25;

function startCourse() {
  const bars = Math.min(COURSE_BARS, total);
  const byOrder = {barOf: place => Math.floor(place * bars / total), ...orderLabels(bars)};
  const byTime = timeAxis(bars);
  const select = byId("course-by");
  select.parentElement.hidden = !byTime;
  let along = byOrder;
  const drawing = svg("svg", {
    viewBox: `${-COURSE.left} ${-COURSE.top} ${COURSE.width + COURSE.left + COURSE.right} ${COURSE.height + COURSE.top + COURSE.bottom}`,
    role: "img", "aria-label": "Share of images that are not OK, over the run",
  });
  byId("course").append(drawing);

  function draw() {
    const counts = Array.from({length: bars}, () => [0, 0, 0]);
    for (let i = 0; i < total; i++) {
      const bar = inScope[i] ? along.barOf(i) : -1;
      if (bar >= 0) counts[bar][verdicts[i]]++;
    }
    const all = counts.map(([ok, review, ng]) => ok + review + ng);
    const worst = Math.max(...counts.map((c, n) => (all[n] ? (c[REVIEW] + c[NG]) / all[n] : 0)), 0.01);
    const {end, ticks} = niceAxis(worst, 4);
    const y = part => COURSE.height * (1 - part / end), width = COURSE.width / bars;
    const parts = ticks.flatMap(tick => [
      svg("line", {class: "axis", x1: 0, x2: COURSE.width, y1: y(tick), y2: y(tick)}),
      svg("text", {x: -8, y: y(tick) + 4, "text-anchor": "end"}, `${+(100 * tick).toPrecision(3)} %`),
    ]);
    counts.forEach((c, n) => {
      let bottom = 0;
      for (const code of all[n] ? [NG, REVIEW] : []) {
        const part = c[code] / all[n];
        if (part) parts.push(svg("rect", {
          class: `bar ${VERDICTS[code]}`, x: n * width + width * 0.08, width: width * 0.84,
          y: y(bottom + part), height: COURSE.height * part / end,
        }, svg("title", {}, `${along.span(n)}: ${describe(c)}`)));
        bottom += part;
      }
    });
    along.labels.forEach((label, n) => {
      const last = along.labels.length - 1;
      const anchor = n === 0 ? "start" : n === last ? "end" : "middle";
      parts.push(svg("text", {x: n / last * COURSE.width, y: COURSE.height + 20, "text-anchor": anchor}, label));
    });
    drawing.replaceChildren(...parts);
  }

  select.addEventListener("change", () => { along = select.value === "time" ? byTime : byOrder; draw(); });
  listeners.push(what => { if (what.has("thresholds") || what.has("scope")) draw(); });
}

function orderLabels(bars) {
  const labels = [0, 0.25, 0.5, 0.75, 1].map(n => whole(Math.max(Math.round(n * total), 1)));
  labels[0] = `image ${labels[0]}`;
  const first = bar => Math.ceil(bar * total / bars);
  return {labels, span: bar => `images ${whole(first(bar) + 1)} to ${whole(first(bar + 1))}`};
}

// Bars of equal time, from the first image to the last; null where times are not known.
function timeAxis(bars) {
  let start = Infinity, end = -Infinity;
  for (const time of times ?? []) {
    if (time < start) start = time;
    if (time > end) end = time;
  }
  if (!(end > start)) return null;
  const at = part => moment(start + part * (end - start));
  return {
    barOf: place => (isFinite(times[place]) ? Math.min(Math.floor((times[place] - start) / (end - start) * bars), bars - 1) : -1),
    span: bar => `${at(bar / bars)} to ${at((bar + 1) / bars)}`,
    labels: [0, 0.5, 1].map(at),
  };
}

function startGroups() {
  const select = byId("group-by");
  if (!several.length) return void byId("groups").remove();
  for (const field of several) select.append(html("option", {value: keyOf(field)}, field.name));
  let sorting = {column: 0, descending: false};
  let open = false;

  function draw() {
    const field = several.find(field => keyOf(field) === select.value);
    const labelled = field.name === "folder" ? data.classes : null;
    const counts = field.values.map(() => [0, 0, 0]);
    for (let i = 0; i < total; i++)
      if (inScope[i] && field.codes[i] >= 0) counts[field.codes[i]][verdicts[i]]++;
    const all = counts.map(([ok, review, ng]) => ok + review + ng);
    const good = code => labelled?.good.includes(code);
    const wrong = code => (good(code) ? counts[code][NG] : counts[code][OK]);
    const alphabetical = new Map(sortedCodes(field).map((code, rank) => [code, rank]));
    const columns = [
      {title: field.name, of: code => alphabetical.get(code)},
      {title: "images", of: code => all[code], number: true},
      {title: "OK", of: code => counts[code][OK] / all[code], text: code => share(counts[code][OK], all[code]), number: true},
      {title: "REVIEW", of: code => counts[code][REVIEW] / all[code], text: code => share(counts[code][REVIEW], all[code]), number: true},
      {title: "NG", of: code => counts[code][NG] / all[code], text: code => share(counts[code][NG], all[code]), number: true},
      ...(labelled ? [
        {title: "wrong", of: code => wrong(code) / all[code], number: true, help: "good parts called NG, or defective ones called OK",
         text: code => `${whole(wrong(code))} ${good(code) ? "rejected" : "missed"}`},
        {title: "AUROC", of: code => labelled.auroc[code] ?? -1, number: true, help: "chance that such a part scores above a good one",
         text: code => (labelled.auroc[code] === null ? "–" : labelled.auroc[code].toFixed(4))},
      ] : []),
    ];
    const sortBy = columns[sorting.column] ?? columns[0];
    const codes = field.values.map((_, code) => code).filter(code => all[code])
      .sort((a, b) => (sortBy.of(a) - sortBy.of(b)) * (sorting.descending ? -1 : 1) || alphabetical.get(a) - alphabetical.get(b));
    const shown = open ? codes : codes.slice(0, MOST_GROUPS);
    byId("groups-head").replaceChildren(html("tr", {}, ...columns.map((column, n) => html("th", {
      class: column.number && "right", scope: "col", title: column.help ?? null,
      "aria-sort": sortBy === column ? (sorting.descending ? "descending" : "ascending") : null,
    }, html("button", {type: "button", class: "sort", onclick: () => {
      sorting = {column: n, descending: sorting.column === n ? !sorting.descending : n > 0};
      draw();
    }}, column.title))), html("th", {class: "wide"}, "")));
    byId("groups-body").replaceChildren(...shown.map(code => html("tr", {},
      html("td", {}, html("button", {
        type: "button", class: "link", title: "Show only these",
        onclick: () => setScope(field, chosen.scope.get(field) === code ? null : code),
      }, html("bdi", {}, field.values[code] || "(none)"))),
      ...columns.slice(1).map(column => html("td", {class: "right"}, column.text ? column.text(code) : whole(column.of(code)))),
      html("td", {class: "wide"}, stackedBar(counts[code])))));
    byId("groups-more").hidden = codes.length <= MOST_GROUPS;
    byId("groups-more").textContent = open ? `Show the first ${MOST_GROUPS}` : `Show all ${whole(codes.length)}`;
    byId("groups-note").hidden = !labelled || labelled.overall === null;
    if (labelled && labelled.overall !== null) byId("groups-note").textContent =
      `The folder “good” holds good parts, the others defective ones: AUROC ${labelled.overall.toFixed(4)} over all.`;
  }

  select.addEventListener("change", () => { sorting = {column: 0, descending: false}; open = false; draw(); });
  byId("groups-more").addEventListener("click", () => { open = !open; draw(); });
  listeners.push(what => { if (what.has("thresholds") || what.has("scope")) draw(); });
}
