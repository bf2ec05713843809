// The summary and the filters, and the start of all parts.

const beforePrinting = [];

function startSummary() {
  listeners.push(what => {
    if (!what.has("thresholds") && !what.has("scope")) return;
    const counts = count(verdicts), before = count(judged);
    const all = counts[OK] + counts[REVIEW] + counts[NG];
    VERDICTS.forEach((verdict, code) => {
      const tile = byId(`count-${verdict}`);
      tile.querySelector("b").textContent = whole(counts[code]);
      tile.querySelector(".share").textContent = share(counts[code], all);
      const more = counts[code] - before[code];
      tile.querySelector(".change").textContent = chosen.moved ? `${more > 0 ? "+" : more < 0 ? "−" : "±"}${whole(Math.abs(more))}` : "";
    });
    byId("scope-note").hidden = !chosen.scope.size;
    byId("scope-text").textContent = `Figures are of ${whole(all)} of ${whole(total)} images: ${
      [...chosen.scope].map(([field, code]) => `${field.name} ${field.values[code]}`).join(", ")}.`;
  });
}

// Where folders are labels: what the thresholds do to good parts and to defective ones.
function startMistakes() {
  if (!data.classes) return;
  const folder = fields.find(field => field.name === "folder");
  const good = new Uint8Array(folder.values.length);
  for (const code of data.classes.good) good[code] = 1;
  byId("mistakes").hidden = false;
  listeners.push(what => {
    if (!what.has("thresholds") && !what.has("scope")) return;
    const counts = [[0, 0, 0], [0, 0, 0]]; // of defective and of good parts, by verdict
    for (let i = 0; i < total; i++) if (inScope[i]) counts[good[folder.codes[i]]][verdicts[i]]++;
    const [defects, goods] = counts;
    const all = of => of[OK] + of[REVIEW] + of[NG];
    const said = (number, of) => `${share(number, all(of))} (${whole(number)} of ${whole(all(of))})`;
    byId("mistakes").textContent = `Good parts that are NG: ${said(goods[NG], goods)}, in review: ` +
      `${said(goods[REVIEW], goods)} · defective parts that are OK: ${said(defects[OK], defects)}, ` +
      `in review: ${said(defects[REVIEW], defects)}`;
  });
}

const MOST_CHOICES = 200; // a longer list is no help

function startFilters() {
  byId("scope-clear").addEventListener("click", () => {
    for (const field of chosen.scope.keys()) setScope(field, null);
  });
  const buttons = [null, NG, REVIEW, OK].map(verdict => html("button", {
    type: "button", "data-verdict": verdict === null ? "" : VERDICTS[verdict], onclick: () => choose({verdict}),
  }));
  byId("verdicts").append(...buttons);
  for (const field of several.filter(field => field.values.length <= MOST_CHOICES)) {
    const select = html("select", {"aria-label": `Only of one ${field.name}`, "data-field": field.name},
      html("option", {value: ""}, `${field.name}: all`),
      ...sortedCodes(field).map(code => html("option", {value: code}, field.values[code])));
    select.addEventListener("change", () => setScope(field, select.value === "" ? null : +select.value));
    listeners.push(() => { select.value = chosen.scope.get(field) ?? ""; });
    byId("scopes").append(select);
  }
  byId("find").addEventListener("input", event => choose({text: event.target.value}));
  const orders = {high: ["score", true], low: ["score", false], name: ["name", false], place: ["place", false]};
  byId("order").addEventListener("change", event => {
    const [key, descending] = orders[event.target.value] ?? [chosen.key, chosen.descending];
    choose({key, descending});
  });
  listeners.push(() => {
    const counts = count(verdicts);
    const texts = [`all ${whole(counts[0] + counts[1] + counts[2])}`,
      ...[NG, REVIEW, OK].map(code => `${VERDICTS[code]} ${whole(counts[code])}`)];
    buttons.forEach((button, n) => {
      button.textContent = texts[n];
      button.setAttribute("aria-pressed", chosen.verdict === [null, NG, REVIEW, OK][n]);
    });
    const name = Object.keys(orders).find(name =>
      orders[name][0] === chosen.key && orders[name][1] === chosen.descending);
    byId("order").value = name ?? "other";
  });
}

function startPrinting() {
  const print = yes => { for (const prepare of beforePrinting) prepare(yes); };
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
  if (location.hash === "#print") print(true); // for programs that print, which wait for pictures
}

startSummary();
startHistogram();
startMistakes();
startCourse();
startGroups();
startFilters();
startTable();
startGallery();
startViewer();
const everything = new Set(["thresholds", "scope", "view"]);
for (const listener of listeners) listener(everything);
startPrinting();
document.documentElement.dataset.ready = "yes";
