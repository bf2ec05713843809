// The scores as a histogram, with the thresholds as handles: by pointer, by arrow keys, by number.

const PLOT = {width: 960, height: 210, left: 56, right: 24, top: 46, bottom: 30};
const SMALLEST_BAR = 3; // so that one part in a million is seen

function startHistogram() {
  const {end, ticks, bins} = data.axis;
  const x = score => score / end * PLOT.width;
  const drawing = svg("svg", {
    viewBox: `${-PLOT.left} ${-PLOT.top} ${PLOT.width + PLOT.left + PLOT.right} ${PLOT.height + PLOT.top + PLOT.bottom}`,
    role: "group", "aria-label": "Histogram of the scores, with the accept and reject thresholds",
  });
  const zones = VERDICTS.map(verdict => svg("rect", {class: `zone ${verdict}`, y: 0, height: PLOT.height}));
  const counts = svg("g"), behind = svg("g");
  drawing.append(...zones, counts, behind);

  const width = PLOT.width / bins;
  const bars = Array.from({length: bins}, (_, bin) => VERDICTS.map(verdict => {
    const rect = svg("rect", {class: `bar ${verdict}`, x: bin * width + 0.75, width: width - 1.5}, svg("title"));
    drawing.append(rect);
    return rect;
  }));
  drawing.append(svg("line", {class: "axis", x1: 0, x2: PLOT.width, y1: PLOT.height, y2: PLOT.height}));
  for (const tick of ticks)
    drawing.append(svg("text", {x: x(tick), y: PLOT.height + 20, "text-anchor": "middle"}, `${+tick.toPrecision(6)}`));

  // Written when a bar is pointed at: a threshold that is dragged would write them all each time.
  drawing.addEventListener("pointerover", event => {
    const bin = bars.findIndex(column => column.includes(event.target));
    if (bin < 0) return;
    const code = bars[bin].indexOf(event.target);
    const span = `${(bin * end / bins).toFixed(3)} to ${((bin + 1) * end / bins).toFixed(3)}`;
    event.target.firstChild.textContent = `${whole(perBin[bin * 3 + code])} ${VERDICTS[code]}, score ${span}`;
  });

  const perBin = new Int32Array(bins * 3);
  const binOf = Int16Array.from(scores, score =>
    score !== score ? -1 : Math.min(Math.max(Math.floor(score / end * bins), 0), bins - 1));

  function draw() {
    perBin.fill(0);
    for (let i = 0; i < total; i++)
      if (inScope[i] && binOf[i] >= 0) perBin[binOf[i] * 3 + verdicts[i]]++;
    let tallest = 1, all = 0;
    for (let bin = 0; bin < bins; bin++) {
      const column = perBin[bin * 3] + perBin[bin * 3 + 1] + perBin[bin * 3 + 2];
      tallest = Math.max(tallest, column);
      all += column;
    }
    const scale = data.baseline ? all / (data.baseline.reduce((a, b) => a + b, 0) || 1) : 0;
    if (scale) tallest = Math.max(tallest, Math.ceil(Math.max(...data.baseline) * scale));
    drawBaseline(behind, scale, tallest);
    for (let bin = 0; bin < bins; bin++) {
      let top = PLOT.height;
      const column = perBin[bin * 3] + perBin[bin * 3 + 1] + perBin[bin * 3 + 2];
      const tall = PLOT.height * part(column, tallest);
      for (const code of [OK, REVIEW, NG]) {
        const number = perBin[bin * 3 + code], bar = bars[bin][code];
        const height = number && Math.max(number / column * tall, SMALLEST_BAR);
        top -= height;
        bar.setAttribute("y", top);
        bar.setAttribute("height", height);
      }
    }
    counts.replaceChildren(...marks(tallest).flatMap(n => {
      const y = PLOT.height * (1 - part(n, tallest));
      return [
        svg("line", {class: "axis", x1: 0, x2: PLOT.width, y1: y, y2: y}),
        svg("text", {x: -8, y: y + 4, "text-anchor": "end"}, whole(n)),
      ];
    }));
    const edges = [0, x(chosen.accept), x(chosen.reject), PLOT.width].map(at => Math.min(at, PLOT.width));
    zones.forEach((zone, code) => {
      zone.setAttribute("x", edges[code]);
      zone.setAttribute("width", Math.max(edges[code + 1] - edges[code], 0));
    });
  }

  // How high a count stands; by its logarithm, few parts are seen beside very many.
  const logarithmic = () => byId("log").checked;
  const part = (number, tallest) =>
    (logarithmic() ? Math.log1p(number) / Math.log1p(tallest) : number / tallest);

  function marks(tallest) {
    if (!logarithmic()) return [tallest, Math.floor(tallest / 2)].filter(n => n > 0);
    const powers = [];
    for (let n = 1; n < tallest / 1.5; n *= 10) powers.push(n);
    return [...powers, tallest];
  }

  // The earlier run as a line, as high as if it had as many images.
  function drawBaseline(group, scale, tallest) {
    if (!data.baseline) return;
    let path = `M0 ${PLOT.height}`;
    data.baseline.forEach((number, bin) => {
      const y = PLOT.height * (1 - part(number * scale, tallest));
      path += `V${y.toFixed(1)}H${((bin + 1) * width).toFixed(1)}`;
    });
    group.replaceChildren(svg("path", {class: "baseline", d: `${path}V${PLOT.height}`}));
  }

  byId("log").addEventListener("change", draw);
  const handles = ["accept", "reject"].map(name => startHandle(name, drawing, x, end));
  byId("histogram").append(drawing);
  listeners.push(what => {
    if (!what.has("thresholds") && !what.has("scope")) return;
    draw();
    for (const handle of handles) handle();
  });
  startThresholdInputs(end);
}

// One threshold; gives the function that puts its handle where it belongs.
function startHandle(name, drawing, x, end) {
  const label = svg("text", {class: "name", y: name === "accept" ? -30 : -12});
  const handle = svg("g", {
    class: "handle", tabindex: 0, role: "slider", "data-name": name,
    "aria-label": `${name} threshold`, "aria-valuemin": 0, "aria-valuemax": end,
  },
    svg("line", {class: "mark", y1: name === "accept" ? -26 : -8, y2: PLOT.height}),
    svg("rect", {class: "grip", x: -7, y: PLOT.height / 2 - 16, width: 14, height: 32, rx: 5}),
    svg("path", {class: "ridges", d: `M-2 ${PLOT.height / 2 - 7}v14M2 ${PLOT.height / 2 - 7}v14`}),
    svg("rect", {class: "touch", x: -14, y: -24, width: 28, height: PLOT.height + 24}));
  drawing.append(label, handle);

  handle.addEventListener("pointerdown", event => {
    handle.setPointerCapture(event.pointerId);
    event.preventDefault();
    handle.focus();
  });
  handle.addEventListener("pointermove", event => {
    if (!handle.hasPointerCapture(event.pointerId)) return;
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(drawing.getScreenCTM().inverse());
    move(name, at.x / PLOT.width * end, end);
  });
  handle.addEventListener("keydown", event => {
    const steps = {ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10};
    if (!(event.key in steps)) return;
    event.preventDefault();
    move(name, chosen[name] + steps[event.key] * (event.shiftKey ? 10 : 1) * end / 500, end);
  });

  return () => {
    const at = Math.min(x(chosen[name]), PLOT.width);
    handle.setAttribute("transform", `translate(${at})`);
    handle.setAttribute("aria-valuenow", chosen[name]);
    label.textContent = name === "accept"
      ? `OK below ${+chosen.accept.toPrecision(4)}` : `NG from ${+chosen.reject.toPrecision(4)}`;
    const right = at < PLOT.width - 130; // else its text would leave the drawing
    label.setAttribute("x", right ? at + 6 : at - 6);
    label.setAttribute("text-anchor", right ? "start" : "end");
  };
}

// Moves one threshold, and no further than the other; scores beyond the axis do not exist.
function move(name, score, end) {
  const rounded = Math.round(Math.min(Math.max(score, 0), end) * 1e6) / 1e6;
  if (name === "accept") setThresholds(Math.min(rounded, chosen.reject), chosen.reject);
  else setThresholds(chosen.accept, Math.max(rounded, chosen.accept));
}

function startThresholdInputs(end) {
  for (const name of ["accept", "reject"]) {
    const input = byId(name);
    input.step = 10 ** Math.floor(Math.log10(end / 100));
    input.addEventListener("change", () => {
      if (input.value !== "" && isFinite(input.valueAsNumber)) move(name, input.valueAsNumber, Math.max(end, 1));
      input.value = +chosen[name].toPrecision(6);
    });
    listeners.push(what => {
      if (what.has("thresholds") && document.activeElement !== input) input.value = +chosen[name].toPrecision(6);
    });
  }
  byId("reset").addEventListener("click", () => setThresholds(data.accept, data.reject));
  listeners.push(what => {
    if (!what.has("thresholds")) return;
    byId("reset").disabled = !chosen.moved;
    byId("use").hidden = !chosen.moved;
    byId("use").lastElementChild.textContent =
      `diffusionad score … --accept ${+chosen.accept.toPrecision(6)} --reject ${+chosen.reject.toPrecision(6)}`;
  });
}
