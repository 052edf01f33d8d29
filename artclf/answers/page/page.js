// The page: takes pictures, hands them to the worker, shows what it answers.

const SURE = 0.5; // from this probability on, a period is named alone
const TOP = 3;
const $ = (id) => document.getElementById(id);
const worker = new Worker("worker.js", { type: "module" });
const cards = new Map(); // by number
let model;

const percent = (share) => (share < 0.01 ? "under 1%" : `${Math.round(100 * share)}%`);

/** `05-high_baroque` as one says it: high baroque. */
const spoken = (name) => name.replace(/^\d+-(?=.)/, "").replaceAll("_", " ");

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

function take(files) {
  for (const file of files) {
    const number = cards.size;
    const card = element("li", "card");
    const picture = element("img");
    picture.alt = "";
    picture.src = URL.createObjectURL(file);
    picture.addEventListener("error", () => picture.remove());
    const text = element("div", "text");
    text.append(element("p", "name", file.name || "pasted picture"), element("p", "wait", "Looking …"));
    card.append(picture, text);
    $("cards").prepend(card);
    cards.set(number, { card, text, name: file.name || "pasted picture" });
    worker.postMessage({ number, file });
  }
}

function bar(name, probability) {
  const row = element("div", "bar");
  const track = element("span", "track");
  const fill = element("span", "fill");
  fill.style.width = `${100 * probability}%`;
  track.append(fill);
  track.setAttribute("aria-hidden", "true");
  row.append(element("dt", "", name), element("dd", "", percent(probability)), track);
  return row;
}

/** All periods in their order, each a column as high as it is likely; the list says it in words. */
function timeline(periods) {
  const line = element("div", "timeline");
  line.setAttribute("aria-hidden", "true");
  const highest = Math.max(...periods);
  periods.forEach((probability, place) => {
    const column = element("span", probability === highest ? "column best" : "column");
    column.style.height = `${Math.max(3, (100 * probability) / highest)}%`;
    column.title = `${spoken(model.vocab[place])}: ${percent(probability)}`;
    line.append(column);
  });
  const ends = element("div", "ends");
  ends.setAttribute("aria-hidden", "true");
  ends.append(element("span", "", spoken(model.vocab[0])), element("span", "", spoken(model.vocab.at(-1))));
  const both = element("div", "time");
  both.append(line, ends);
  return both;
}

function best(probabilities, names) {
  const order = probabilities.map((_, place) => place).sort((a, b) => probabilities[b] - probabilities[a]);
  return order.map((place) => [spoken(names[place]), probabilities[place]]);
}

function show({ number, periods, artists }) {
  const { card, text, name } = cards.get(number);
  const [first, second, ...others] = best(periods, model.vocab);
  const isSure = first[1] >= SURE || !second;
  const words = isSure ? first[0] : `not sure, between ${first[0]} and ${second[0]}`;
  const answer = element("p", isSure ? "answer" : "answer unsure", words);
  const list = element("dl", "bars");
  for (const [period, probability] of [first, second, ...others].filter(Boolean).slice(0, TOP)) {
    list.append(bar(period, probability));
  }
  text.replaceChildren(element("p", "name", name), answer, list, timeline(periods));
  if (artists.length) {
    const [artist, probability] = best(artists, model.artists)[0];
    text.append(element("p", "artist", `likeliest artist: ${artist}, ${percent(probability)}`));
  }
  card.dataset.probabilities = JSON.stringify(periods);
  $("said").textContent = `${name}: ${words}, ${percent(first[1])}`;
}

function showError({ number, error }) {
  const { card, text, name } = cards.get(number);
  const said = `The browser can't read it as a picture: ${error}`;
  text.replaceChildren(element("p", "name", name), element("p", "error", said));
  card.dataset.error = error;
  card.classList.add("unread");
  $("said").textContent = `${name}: ${said}`;
}

function begin(loaded) {
  model = loaded;
  $("state").textContent = `Ready. It tells ${model.vocab.length} periods apart.`;
  document.body.dataset.ready = "yes";
  for (const period of model.vocab) $("periods").append(element("li", "", spoken(period)));
}

worker.onmessage = ({ data }) => {
  if (data.kind === "ready") begin(data.model);
  else if (data.kind === "answer") show(data);
  else if (data.kind === "error") showError(data);
  else $("state").textContent = `The classifier can't be loaded: ${data.error}`;
};
worker.onerror = (event) => {
  $("state").textContent = `The classifier can't be loaded: ${event.message || "see the console"}`;
};

$("pick").addEventListener("change", (event) => {
  take(event.target.files);
  event.target.value = ""; // so that the same file may be taken again
});
addEventListener("paste", (event) => take(event.clipboardData.files));
for (const kind of ["dragenter", "dragover"]) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.add("dragging");
  });
}
for (const kind of ["dragleave", "drop"]) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    if (kind === "drop" || !event.relatedTarget) document.body.classList.remove("dragging");
  });
}
addEventListener("drop", (event) => take(event.dataTransfer.files));
