// The page of `artclf serve`: pictures go to /api/predict, answers become cards. Texts that come
// from pictures and from the server are set as text, never as markup.

const AT_ONCE = 3; // requests under way
const TRIES = 4; // of a request that is told to come back
const LEAST_SHOWN = 0.03; // probability of a period that has a row of its own
const byId = (id) => document.getElementById(id);

let model = null;
let token = sessionStorage.getItem("token") || "";
let underWay = 0;
const waiting = [];

// ---- the server

class Failure extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  for (let tries = 1; ; tries += 1) {
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch {
      throw new Failure(0, "The server can't be reached.");
    }
    if (response.ok) return response;
    const comeBack = Number(response.headers.get("Retry-After"));
    if (comeBack && tries < TRIES) {
      await new Promise((resolve) => setTimeout(resolve, 1000 * Math.min(comeBack, 30)));
      continue;
    }
    const content = await response.json().catch(() => ({}));
    throw new Failure(response.status, content.error || `The server answers ${response.status}.`);
  }
}

async function start() {
  try {
    model = await (await ask("/api/model")).json();
  } catch (failure) {
    if (failure.status === 401) return askForToken(token ? "That is not the token." : "");
    return say(failure.message);
  }
  byId("token-form").hidden = true;
  byId("intake").hidden = false;
  byId("url-form").hidden = !model.urls;
  byId("collects").hidden = !model.collects;
  byId("api").hidden = Boolean(token);
  describeModel();
}

function askForToken(problem) {
  byId("token-form").hidden = false;
  byId("intake").hidden = true;
  byId("token-problem").textContent = problem;
  byId("token").focus();
}

function describeModel() {
  const figures = model.figures;
  const parts = [`Classifier ${model.name}, ${model.classes.length} periods`];
  if (figures) {
    parts.push(
      `right for ${percent(figures.accuracy)} of ${figures.images} pictures that it had not seen`
    );
  }
  byId("model").textContent = `${parts.join(", ")}.`;
  const periods = model.classes.map((one) => {
    const item = element("li", "", one.label);
    item.style.setProperty("--colour", colourOf(one.period));
    return item;
  });
  byId("periods").replaceChildren(...periods);
  if (!model.chronological) byId("known-title").textContent = "It knows these classes";
  byId("known").hidden = false;
}

// ---- words and colours

const percent = (share) => {
  const number = 100 * share;
  return number > 0 && number < 1 ? "< 1%" : `${Math.round(number)}%`;
};
const label = (period) => {
  const known = model.classes.find((one) => one.period === period);
  return known ? known.label : period;
};

function colourOf(period) {
  const place = model.classes.findIndex((one) => one.period === period);
  const last = Math.max(model.classes.length - 1, 1);
  const hue = (75 - (310 * Math.max(place, 0)) / last + 360) % 360;
  return `oklch(var(--bar-lightness) 0.13 ${hue.toFixed(0)})`;
}

function say(text) {
  byId("status").textContent = text;
}

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// ---- cards

function addCards(items) {
  const fragment = document.createDocumentFragment();
  for (const item of items) {
    const card = byId("card").content.firstElementChild.cloneNode(true);
    prepare(card, item);
    fragment.append(card);
    waiting.push(() => answer(card, item));
  }
  byId("answers").prepend(fragment);
  document.body.classList.add("has-answers");
  work();
}

function prepare(card, item) {
  const painting = card.querySelector(".painting");
  const address = item.file ? URL.createObjectURL(item.file) : "";
  if (address) painting.src = address;
  painting.classList.toggle("unseen", !address);
  painting.addEventListener("error", () => painting.classList.add("unseen")); // a TIFF, perhaps
  painting.alt = `Your picture ${item.name}`;
  card.querySelector(".name").textContent = item.name;
  card.setAttribute("aria-label", item.name);
  const remove = card.querySelector(".remove");
  remove.setAttribute("aria-label", `Remove ${item.name}`);
  remove.addEventListener("click", () => {
    const next = card.nextElementSibling || card.previousElementSibling;
    card.remove();
    URL.revokeObjectURL(address);
    if (!next) document.body.classList.remove("has-answers");
    (next ? next.querySelector(".remove") : byId("files")).focus();
    say(`${item.name} is removed.`);
  });
}

function work() {
  while (underWay < AT_ONCE && waiting.length) {
    const job = waiting.shift();
    underWay += 1;
    job().finally(() => {
      underWay -= 1;
      work();
    });
  }
}

function bodyOf(item) {
  if (item.url) {
    const headers = { "Content-Type": "application/json" };
    return { method: "POST", headers, body: JSON.stringify({ urls: [item.url] }) };
  }
  const headers = { "Content-Type": "application/octet-stream" };
  return { method: "POST", headers, body: item.file };
}

async function answer(card, item) {
  try {
    if (item.file && item.file.size > model.limits.max_bytes) {
      throw new Failure(413, `It is larger than ${Math.floor(model.limits.max_bytes / 2 ** 20)} MB.`);
    }
    const response = await ask("/api/predict", bodyOf(item));
    const [result] = (await response.json()).results;
    if (result.error) throw new Failure(422, result.error);
    show(card, item, result);
  } catch (failure) {
    fail(card, item, failure);
  }
  card.setAttribute("aria-busy", "false");
}

function fail(card, item, failure) {
  card.classList.add("failed");
  card.querySelector(".verdict").textContent = "No answer";
  card.querySelector(".period").textContent = "This picture can't be read";
  if (failure.status !== 422) card.querySelector(".period").textContent = "Something went wrong";
  card.querySelector(".sentence").textContent = `${failure.message.replace(/\.?$/, ".")}`;
  say(`${item.name}: no answer. ${failure.message}`);
  if (failure.status === 401) askForToken("The token has changed.");
}

function show(card, item, result) {
  const [first, second] = result.top;
  const verdict = card.querySelector(".verdict");
  const period = card.querySelector(".period");
  const sentence = card.querySelector(".sentence");
  const between = second ? `Between ${label(first.period)} and ${label(second.period)}` : "";
  if (result.sure || !second) {
    verdict.textContent = result.far ? "At most a guess" : "Most likely";
    period.textContent = label(first.period);
    sentence.textContent = `With a probability of ${percent(first.probability)}.`;
  } else {
    verdict.textContent = "Not sure";
    period.textContent = between;
    sentence.textContent =
      `The likeliest period has a probability of ${percent(first.probability)}, below the ` +
      `${percent(model.min_probability)} from which on it is sure.`;
    if (percent(first.probability) === percent(model.min_probability)) {
      sentence.textContent = `The likeliest period is just below the ${percent(
        model.min_probability
      )} from which on it is sure.`;
    }
  }
  if (result.artist) {
    sentence.textContent += ` Perhaps by ${result.artist} (${percent(result.artist_probability)}).`;
  }
  card.querySelector(".far").hidden = !result.far;
  showTimes(card, result);
  showNearest(card, result.nearest);
  if (model.saliency && item.file) offerMap(card, item, first.period);
  if (model.collects && item.file) offerToGive(card, item);
  const told = result.sure ? label(first.period) : `not sure. ${between}`;
  const unlike = result.far ? " It resembles none of the pictures that it learned from." : "";
  say(`${item.name}: ${told}, ${percent(first.probability)}.${unlike}`);
}

function showTimes(card, result) {
  const times = card.querySelector(".times");
  const list = card.querySelector(".timeline");
  times.querySelector("h3").textContent = model.chronological
    ? "On the time line, early to late"
    : "All classes";
  const likeliest = new Set(result.top.slice(0, 3).map((item) => item.period));
  let minor = 0;
  for (const { period } of model.classes) {
    const share = result.probabilities[period];
    const row = element("li");
    row.style.setProperty("--colour", colourOf(period));
    row.style.setProperty("--share", share.toFixed(4));
    if (share < LEAST_SHOWN && !(likeliest.has(period) && share >= 0.01)) {
      row.classList.add("minor");
      minor += 1;
    }
    if (period === result.top[0].period) row.classList.add("first");
    const node = element("span", "node");
    const bar = element("span", "bar");
    node.setAttribute("aria-hidden", "true");
    bar.setAttribute("aria-hidden", "true");
    row.append(element("span", "label", label(period)), node, bar);
    row.append(element("span", "share", percent(share)));
    list.append(row);
  }
  const all = card.querySelector(".all");
  all.hidden = !minor;
  all.textContent = `Show all ${model.classes.length}`;
  all.addEventListener("click", () => {
    const isWhole = list.classList.toggle("whole");
    all.setAttribute("aria-expanded", String(isWhole));
    all.textContent = isWhole ? "Show the likely ones" : `Show all ${model.classes.length}`;
  });
  times.hidden = false;
}

function showNearest(card, nearest) {
  const list = card.querySelector(".nearest");
  for (const one of nearest) {
    const item = element("li");
    item.style.setProperty("--colour", colourOf(one.period));
    const thumb = element("div", "thumb");
    thumb.append(element("div", "tile"));
    if (one.thumbnail) loadThumbnail(thumb, one.thumbnail);
    const title = one.title || (one.artist ? "Untitled" : one.file);
    const work = one.source_page ? element("a", "work", title) : element("span", "work", title);
    if (one.source_page) {
      work.href = one.source_page;
      work.target = "_blank";
      work.rel = "noopener noreferrer";
    }
    const by = [one.artist, one.year].filter(Boolean).join(", ");
    item.append(thumb, work);
    if (by) item.append(element("small", "", by));
    item.append(element("small", "chip", label(one.period)));
    if (one.source) item.append(element("small", "source", one.source));
    list.append(item);
  }
  card.querySelector(".similar").hidden = !nearest.length;
  const allowKeys = () => {
    if (list.scrollWidth > list.clientWidth) list.tabIndex = 0; // so that keys can scroll it
    else list.removeAttribute("tabindex");
  };
  new ResizeObserver(allowKeys).observe(list);
}

async function loadThumbnail(thumb, path) {
  try {
    const image = element("img");
    image.alt = "";
    image.src = URL.createObjectURL(await (await ask(path)).blob());
    await image.decode();
    thumb.replaceChildren(image);
  } catch {
    // the tile stays
  }
}

function offerMap(card, item, period) {
  const button = card.querySelector(".explain");
  const map = card.querySelector(".map");
  button.hidden = false;
  button.textContent = `What spoke for ${label(period)}`;
  button.addEventListener("click", async () => {
    if (!map.src) {
      button.disabled = true;
      try {
        const path = `/api/saliency?period=${encodeURIComponent(period)}`;
        const png = await (await ask(path, bodyOf(item))).blob();
        map.src = URL.createObjectURL(png);
        map.alt = `Bright parts of ${item.name} spoke for ${label(period)}`;
      } catch (failure) {
        button.textContent = failure.message;
        say(failure.message);
        return;
      } finally {
        button.disabled = false;
      }
    }
    map.hidden = !map.hidden;
    button.setAttribute("aria-pressed", String(!map.hidden));
    say(map.hidden ? "The map is hidden." : "The bright parts of the picture spoke for it.");
  });
}

function offerToGive(card, item) {
  const give = card.querySelector(".give");
  const form = give.querySelector("form");
  const button = form.querySelector("button");
  const given = form.querySelector(".given");
  const tell = (text) => {
    give.querySelector(".receipt").textContent = text;
    say(text);
  };
  for (const one of model.classes) {
    const option = element("option", "", one.label);
    option.value = one.period;
    given.append(option);
  }
  give.hidden = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    tell("Sending it.");
    try {
      const period = encodeURIComponent(given.value);
      const response = await ask(`/api/suggest?agree=yes&period=${period}`, bodyOf(item));
      const { number, is_new: isNew } = await response.json();
      form.remove();
      give.querySelector("summary").focus();
      tell(
        isNew
          ? `Thank you. It waits for a person's decision. If you want it removed, its number is ${number}.`
          : `The collection has it already. Its number is ${number}.`
      );
    } catch (failure) {
      tell(`It is not kept: ${failure.message.replace(/\.?$/, ".")}`);
      button.disabled = false;
    }
  });
}

// ---- how pictures get in

function takeFiles(files) {
  if (!model) return;
  const items = [...files].map((file) => ({ file, name: file.name || "pasted picture" }));
  if (items.length) {
    say(items.length === 1 ? "Looking at the picture." : `Looking at ${items.length} pictures.`);
    addCards(items);
  }
}

for (const id of ["files", "camera"]) {
  byId(id).addEventListener("change", (event) => {
    takeFiles(event.target.files);
    event.target.value = "";
  });
}

let depth = 0; // dragenter and dragleave come for every element on the way
const hasFiles = (event) => event.dataTransfer && [...event.dataTransfer.types].includes("Files");
document.addEventListener("dragenter", (event) => {
  if (!hasFiles(event)) return;
  depth += 1;
  byId("drop").classList.add("over");
});
document.addEventListener("dragleave", () => {
  depth = Math.max(0, depth - 1);
  if (!depth) byId("drop").classList.remove("over");
});
document.addEventListener("dragover", (event) => {
  if (hasFiles(event)) event.preventDefault();
});
document.addEventListener("drop", (event) => {
  depth = 0;
  byId("drop").classList.remove("over");
  if (!hasFiles(event)) return;
  event.preventDefault();
  takeFiles(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData ? event.clipboardData.files : [])];
  if (files.length) {
    event.preventDefault();
    takeFiles(files);
  }
});

byId("url-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const field = byId("url");
  const url = field.value.trim();
  addCards([{ url, name: url }]);
  field.value = "";
});

byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value.trim();
  sessionStorage.setItem("token", token);
  start();
});

start();
