// Elements and numbers as texts. Text from results only ever becomes a text node or an attribute
// that holds text: no part of the page sets markup.

const byId = id => document.getElementById(id);

function put(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const html = (tag, attributes = {}, ...children) =>
  put(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
  put(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

const whole = number => number.toLocaleString("en-US");
const share = (part, all) => (all ? `${(100 * part / all).toFixed(part && part / all < 0.01 ? 2 : 1)} %` : "–");
const digits = score => (score !== score ? "no number" : score.toFixed(4));

// A time as the reader's clock has it; the Swedes write ISO 8601.
const moment = seconds => new Date(1000 * seconds).toLocaleString("sv-SE");

// A bar of three parts, by verdict.
function stackedBar(counts) {
  const all = counts[OK] + counts[REVIEW] + counts[NG];
  const bar = html("div", {class: "stacked", title: describe(counts)});
  for (const code of [NG, REVIEW, OK]) {
    if (!counts[code]) continue;
    const part = html("i", {class: VERDICTS[code]});
    part.style.flexGrow = counts[code] / all;
    bar.append(part);
  }
  return bar;
}

const describe = counts => VERDICTS.map((verdict, code) => `${verdict} ${whole(counts[code])}`).join(", ");

const badge = code => html("span", {class: `badge ${VERDICTS[code]}`}, VERDICTS[code]);

// The end of an axis from 0 that holds `needed`, and its ticks: steps of 1, 2 or 5 times a power of ten.
function niceAxis(needed, most = 5) {
  const power = 10 ** Math.floor(Math.log10(needed / most));
  const step = [1, 2, 5, 10].map(factor => factor * power).find(step => needed / step <= most + 1e-9);
  const count = Math.max(Math.ceil(needed / step - 1e-9), 1);
  return {end: count * step, ticks: Array.from({length: count + 1}, (_, n) => n * step)};
}
