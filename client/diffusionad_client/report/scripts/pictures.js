// Where the pictures of an image are: inside the page, or beside it, read when they are seen.

const KINDS = {image: "image", reconstruction: "reconstruction", heatmap: "heat map"};
const embedded = JSON.parse(document.getElementById("embedded").textContent);
const files = {heatmap: unpacked(data.pictures.heatmap), reconstruction: unpacked(data.pictures.reconstruction)};
const shownKinds = Object.keys(KINDS).filter(kind =>
  kind === "image" || files[kind].codes.some(code => code >= 0));

// A name as a URL. Bytes of it that are no UTF-8 come as U+DC80 to U+DCFF.
function encodePath(name) {
  return name.replace(/[\uD800-\uDBFF][\uDC00-\uDFFF]|[^/]/g, letter => {
    const code = letter.charCodeAt(0);
    if (letter.length === 1 && code >= 0xdc80 && code <= 0xdcff) return `%${(code - 0xdc00).toString(16)}`;
    return letter.length === 1 && code >= 0xd800 && code <= 0xdfff ? "%EF%BF%BD" : encodeURIComponent(letter);
  });
}

// The URL of one picture, and how many pixels at its foot are a scale; or why there is none.
function source(place, kind) {
  const inside = embedded[place]?.[kind];
  if (inside) return {url: inside, strip: 0};
  const name = data.names[place];
  if (kind === "image") {
    if (data.pictures.image === null) return {missing: "the image is not on this computer"};
    if (!data.pictures.shown.some(suffix => name.toLowerCase().endsWith(suffix)))
      return {missing: "browsers do not show this format"};
    return {url: data.pictures.image + encodePath(name), strip: 0};
  }
  const {values, codes} = files[kind];
  if (codes[place] < 0) return {missing: `no ${KINDS[kind]} was made`};
  return {url: encodePath(values[codes[place]].replace("\0", () => name)), strip: kind === "heatmap" ? data.pictures.strip : 0};
}

// A picture without its scale, in a frame of its own shape that fits into a square.
function framed(place, kind, lazy = true) {
  const frame = html("span", {class: "frame"});
  const from = source(place, kind);
  if (from.missing) return html("span", {class: "gone"}, from.missing);
  const picture = html("img", {alt: KINDS[kind], loading: lazy ? "lazy" : "eager", decoding: "async"});
  picture.addEventListener("load", () => {
    const width = picture.naturalWidth, height = picture.naturalHeight - from.strip;
    frame.style.setProperty("--ratio", width / height);
    frame.style.aspectRatio = `${width} / ${height}`;
    frame.style.width = width >= height ? "100%" : `${100 * width / height}%`;
    picture.style.height = `${100 * (height + from.strip) / height}%`;
  });
  picture.addEventListener("error", () =>
    frame.replaceWith(html("span", {class: "gone"}, `the ${KINDS[kind]} is no longer there`)));
  picture.src = from.url;
  frame.append(picture);
  return frame;
}
