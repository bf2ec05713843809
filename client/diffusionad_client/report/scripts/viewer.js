// One image, large: what it was and what was made of it, one over the other with a slider between.

let openViewer = () => {};

function startViewer() {
  const dialog = byId("viewer"), stage = byId("stage"), slider = byId("slider");
  let at = 0; // place in the view
  let [under, over] = ["image", shownKinds.includes("heatmap") ? "heatmap" : shownKinds[1]];

  function draw() {
    const place = view()[at];
    const base = framed(place, under, false);
    stage.replaceChildren(base);
    if (over && base.className !== "frame") stage.append(framed(place, over, false));
    if (over && base.className === "frame") {
      // The upper picture takes the shape of the lower one: they show the same part.
      const top = framed(place, over, false);
      top.classList.add("over");
      base.append(top, html("span", {class: "seam"}));
    }
    slider.hidden = !over || base.className !== "frame";
    slide();
    byId("viewer-name").textContent = data.names[place];
    byId("viewer-verdict").replaceChildren(badge(verdicts[place]));
    byId("viewer-score").textContent = digits(scores[place]);
    byId("viewer-at").textContent = `${whole(at + 1)} of ${whole(view().length)}`;
    const facts = fields.filter(field => field.codes[place] >= 0)
      .map(field => [field.name, field.values[field.codes[place]]]);
    for (const {title, scale, decimals, values} of numbers)
      if (isFinite(values[place])) facts.push([title, (scale * values[place]).toFixed(decimals)]);
    if (times && isFinite(times[place])) facts.push(["scored", moment(times[place])]);
    if (verdicts[place] !== judged[place]) facts.push(["judged by the run", VERDICTS[judged[place]]]);
    byId("viewer-facts").replaceChildren(...facts.flatMap(([name, value]) =>
      [html("dt", {}, name), html("dd", {}, html("bdi", {}, value))]));
    byId("viewer-back").disabled = at === 0;
    byId("viewer-on").disabled = at === view().length - 1;
    for (const button of byId("compare").children) {
      const [lower, upper] = button.dataset.kinds.split(",");
      button.setAttribute("aria-pressed", lower === under && upper === over);
    }
  }

  const slide = () => stage.style.setProperty("--split", `${slider.value}%`);
  const go = by => {
    at = Math.min(Math.max(at + by, 0), view().length - 1);
    draw();
  };

  const pairs = shownKinds.length > 1 ? [["image", "heatmap"], ["image", "reconstruction"], ["reconstruction", "heatmap"]]
    .filter(pair => pair.every(kind => shownKinds.includes(kind))) : [];
  byId("compare").append(...pairs.map(pair => html("button", {
    type: "button", "data-kinds": pair.join(), onclick: () => { [under, over] = pair; draw(); },
  }, pair.map(kind => KINDS[kind]).join(" | "))));
  slider.addEventListener("input", slide);
  byId("viewer-back").addEventListener("click", () => go(-1));
  byId("viewer-on").addEventListener("click", () => go(1));
  byId("viewer-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("keydown", event => {
    if (event.target === slider && event.key !== "Escape") return; // its own arrows move it
    if (event.key === "ArrowLeft") go(-1);
    else if (event.key === "ArrowRight") go(1);
    else return;
    event.preventDefault();
  });
  // What lies under the other picture is gone: show that alone.
  stage.addEventListener("error", event => {
    if (!over || event.target.parentElement?.parentElement !== stage || event.target.alt !== KINDS[under]) return;
    stage.append(framed(view()[at], over, false));
    slider.hidden = true;
  }, true);
  // Anywhere on the picture the seam follows the pointer.
  const follow = event => {
    const box = stage.querySelector(".frame")?.getBoundingClientRect();
    if (!box || !over) return;
    slider.value = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1) * 100;
    slide();
  };
  stage.addEventListener("pointerdown", event => {
    stage.setPointerCapture(event.pointerId);
    event.preventDefault();
    follow(event);
  });
  stage.addEventListener("pointermove", event => { if (stage.hasPointerCapture(event.pointerId)) follow(event); });

  openViewer = n => {
    at = n;
    slider.value = 50;
    draw();
    dialog.showModal();
    (pairs.length ? slider : byId("viewer-close")).focus();
  };
}
