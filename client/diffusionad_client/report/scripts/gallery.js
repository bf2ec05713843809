// The gallery, a page at a time; pictures are loaded when they come into sight.

const CARDS = 24;

function startGallery() {
  const grid = byId("grid");
  let page = 0;
  let kinds = shownKinds; // which pictures a card has
  let drawn = ""; // which cards stand there; verdicts alone change nothing but badges
  let printing = false;

  function draw() {
    const shown = view();
    const pages = Math.max(Math.ceil(shown.length / CARDS), 1);
    page = Math.min(page, pages - 1);
    const places = Array.from(shown.subarray(page * CARDS, (page + 1) * CARDS));
    const wanted = `${kinds}:${places}:${printing}`;
    if (wanted === drawn) {
      places.forEach((place, n) => grid.children[n].querySelector(".badge").replaceWith(badge(verdicts[place])));
    } else {
      grid.style.setProperty("--pictures", kinds.length);
      grid.replaceChildren(...places.map((place, n) => card(place, page * CARDS + n)));
      drawn = wanted;
    }
    byId("page").textContent = shown.length
      ? `${whole(page * CARDS + 1)}–${whole(page * CARDS + places.length)} of ${whole(shown.length)}` : "no images";
    byId("page-back").disabled = page === 0;
    byId("page-on").disabled = page === pages - 1;
  }

  function card(place, n) {
    const name = data.names[place];
    return html("button", {type: "button", class: "card", "data-place": place, onclick: () => openViewer(n)},
      html("div", {class: "trio"}, ...kinds.map(kind =>
        html("figure", {}, framed(place, kind, !printing), html("figcaption", {}, KINDS[kind])))),
      html("div", {class: "about"}, badge(verdicts[place]),
        html("span", {class: "name soft", title: name}, html("bdi", {}, name)),
        html("span", {class: "score"}, digits(scores[place]))));
  }

  const buttons = [["all", shownKinds], ...shownKinds.map(kind => [KINDS[kind], [kind]])];
  if (shownKinds.length > 1)
    byId("kinds").append(...buttons.map(([title, some], n) => html("button", {
      type: "button", "aria-pressed": n === 0, onclick: event => {
        kinds = some;
        for (const button of byId("kinds").children) button.setAttribute("aria-pressed", button === event.currentTarget);
        grid.classList.toggle("small-cards", kinds.length === 1);
        draw();
      },
    }, title)));
  grid.classList.toggle("small-cards", kinds.length === 1);
  byId("ramp").hidden = !shownKinds.includes("heatmap");
  const turn = by => { page = Math.max(page + by, 0); draw(); };
  byId("page-back").addEventListener("click", () => turn(-1));
  byId("page-on").addEventListener("click", () => turn(1));
  listeners.push(what => {
    if (what.has("view") || what.has("scope")) page = 0;
    draw();
  });
  beforePrinting.push(yes => { printing = yes; draw(); });
}
