// What the page knows of the run, what the reader has chosen, and what follows from both.
// Nothing here draws: the other parts listen, and read.

const VERDICTS = ["OK", "REVIEW", "NG"];
const [OK, REVIEW, NG] = [0, 1, 2];
const MANY_NAMES = 20000; // sorted by their characters; fewer, as people count: 2 before 10

const data = JSON.parse(document.getElementById("run").textContent);
if (!data) return; // nothing was scored: the page is complete as it stands

const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
const judged = bytes(data.verdicts); // as the run judged
const doubles = text => new Float64Array(bytes(text).buffer);
const times = data.times && doubles(data.times); // seconds since 1970; NaN: not known
const scores = doubles(data.scores); // NaN: not a number
// Further numbers of an image, as they are shown.
const numbers = [
  {key: "area_percent", title: "area %", help: "share of the image that defects cover", scale: 1, decimals: 2},
  {key: "request_s", title: "ms", help: "time that the request took", scale: 1000, decimals: 1},
].filter(({key}) => key in data.numbers).map(number => ({...number, values: doubles(data.numbers[number.key])}));
const unpacked = field => ({...field, codes: new Int32Array(bytes(field.codes).buffer)});
const fields = data.fields.map(unpacked);
const several = fields.filter(field => field.values.length > 1); // by which images differ
const keyOf = field => `field ${field.name}`; // whatever its name, that of no other column
const total = data.total;
const hasName = place => data.names[place] !== null;

const chosen = {
  accept: data.accept,
  reject: data.reject,
  moved: false, // are the thresholds other than the run's?
  scope: new Map(), // field -> code of its value: all figures are of these images
  verdict: null, // the table and the gallery show these
  text: "",
  key: "score",
  descending: true,
};

const verdicts = judged.slice(); // by the chosen thresholds
const inScope = new Uint8Array(total).fill(1);
const listeners = [];
let pending = null;

// `what` is "thresholds", "scope" or "view"; listeners are called once a frame.
function changed(what) {
  if (pending) return void pending.add(what);
  pending = new Set([what]);
  requestAnimationFrame(() => {
    const all = pending;
    pending = null;
    if (all.has("thresholds")) judge();
    if (all.has("scope")) findScope();
    viewed = null;
    for (const listener of listeners) listener(all);
  });
}

function judge() {
  if (!chosen.moved) return void verdicts.set(judged);
  const {accept, reject} = chosen;
  for (let i = 0; i < total; i++) {
    const score = scores[i];
    verdicts[i] = score >= reject ? NG : score < accept ? OK : REVIEW; // NaN: REVIEW
  }
}

function findScope() {
  inScope.fill(1);
  for (const [field, code] of chosen.scope)
    for (let i = 0; i < total; i++) if (field.codes[i] !== code) inScope[i] = 0;
}

function setThresholds(accept, reject) {
  Object.assign(chosen, {accept, reject});
  chosen.moved = accept !== data.accept || reject !== data.reject;
  changed("thresholds");
}

function setScope(field, code) {
  if (code === null) chosen.scope.delete(field);
  else chosen.scope.set(field, code);
  changed("scope");
}

function choose(some) {
  Object.assign(chosen, some);
  changed("view");
}

// How many images in scope have each verdict.
function count(of) {
  const counts = [0, 0, 0];
  for (let i = 0; i < total; i++) counts[of[i]] += inScope[i];
  return counts;
}

const orders = new Map(); // key -> all places, rising

function order(key) {
  if (key === "verdict") key = "score"; // which orders verdicts too, whatever the thresholds
  if (!orders.has(key)) orders.set(key, Uint32Array.from({length: total}, (_, i) => i).sort(compare(key)));
  return orders.get(key);
}

function compare(key) {
  // No number is above all numbers: it is what a person must look at first.
  const number = values => (a, b) => {
    const x = values[a], y = values[b];
    return x === y ? a - b : x !== x ? (y !== y ? a - b : 1) : y !== y ? -1 : x - y;
  };
  if (key === "place") return (a, b) => a - b;
  if (key === "score") return number(scores);
  const further = numbers.find(number => number.key === key);
  if (further) return number(further.values);
  if (key === "name") {
    const names = data.names.map(name => name ?? "");
    const plain = (a, b) => (names[a] < names[b] ? -1 : names[a] > names[b] ? 1 : a - b);
    if (total > MANY_NAMES) return plain;
    const collator = new Intl.Collator(undefined, {numeric: true});
    return (a, b) => collator.compare(names[a], names[b]) || a - b;
  }
  const field = fields.find(field => keyOf(field) === key);
  const ranks = new Int32Array(field.values.length + 1);
  sortedCodes(field).forEach((code, rank) => { ranks[code + 1] = rank + 1; });
  return (a, b) => ranks[field.codes[a] + 1] - ranks[field.codes[b] + 1] || a - b;
}

function sortedCodes(field) {
  const collator = new Intl.Collator(undefined, {numeric: true});
  return field.values.map((_, code) => code)
    .sort((a, b) => collator.compare(field.values[a], field.values[b]));
}

let viewed = null;

// The places that the table and the gallery show, in their order.
function view() {
  if (viewed) return viewed;
  const text = chosen.text.toLowerCase();
  const all = order(chosen.key);
  const kept = new Uint32Array(total);
  let length = 0;
  for (let n = 0; n < total; n++) {
    const place = all[chosen.descending ? total - 1 - n : n];
    if (!inScope[place] || !hasName(place)) continue;
    if (chosen.verdict !== null && verdicts[place] !== chosen.verdict) continue;
    if (text && !data.names[place].toLowerCase().includes(text)) continue;
    kept[length++] = place;
  }
  return (viewed = kept.subarray(0, length));
}
