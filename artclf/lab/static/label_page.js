// The page of `artclf.lab.label_page`: twenty pictures, one key each. A key shows at once and goes to
// the kernel, which stores it and answers; then the page shows what is stored. Texts that come from
// pictures are set as text, never as markup.

const SKIP = "keep";
const NO_PAINTING = "drop";
const KEY_OF = { " ": SKIP, "-": NO_PAINTING };
const WORDS = { [SKIP]: "skipped", [NO_PAINTING]: "no painting" };

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function render({ model, el }) {
  let current = 0; // the place on the page of the picture that a key is about
  let unanswered = 0; // messages to the kernel
  let isUndoing = false;
  let shown = ""; // the pictures of the page
  let decisions = []; // '', a period, SKIP or NO_PAINTING for each picture of the page

  const counts = element("b");
  const said = element("span");
  const status = element("div", { role: "status" }, counts, " ", said);
  const picture = element("div", { class: "picture" });
  const choices = element("div", { class: "choices" });
  const others = element("div", { class: "others" });
  const strip = element("ol", { class: "strip" });
  const curve = element("img", { class: "curve", alt: "estimated accuracy by number of labels" });
  const estimate = element("div", { class: "estimate" });
  const focus = element("div", { class: "focus" }, "Click here, then press keys.");
  const root = element(
    "div",
    { class: "artclf-label", tabindex: 0, "data-lm-suppress-shortcuts": "true", onkeydown: press },
    status,
    element("div", { class: "main" }, picture, element("div", {}, choices, others, focus)),
    strip,
    element("div", { class: "main" }, curve, estimate),
  );

  function press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const act = actOf(event.key);
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }

  function actOf(name) {
    if (name === "Backspace") return undo;
    if (name === "ArrowLeft") return () => turn(-1);
    if (name === "ArrowRight") return () => turn(1);
    if (name in KEY_OF) return () => decide(KEY_OF[name]);
    const chosen = model.get("choices").find((one) => one.key === name.toLowerCase());
    return chosen && (() => decide(chosen.period));
  }

  function ask(message) {
    unanswered += 1;
    model.send(message);
    show();
  }

  function decide(choice) {
    const page = model.get("page");
    if (!page.length || isUndoing || isChoosing()) return;
    const { place } = page[current];
    decisions[current] = choice;
    current = nextUndecided();
    ask({ act: "decide", place, choice });
  }

  // until it is answered, nobody knows which picture is current, and no key counts
  function undo() {
    if (isUndoing) return;
    isUndoing = true;
    ask({ act: "undo" });
  }

  function turn(step) {
    const last = model.get("page").length - 1;
    current = Math.max(0, Math.min(last, current + step));
    show();
  }

  // every picture of the page is decided: the kernel chooses the next ones, and no key counts
  function isChoosing() {
    return unanswered > 0 && decisions.every(Boolean);
  }

  function nextUndecided() {
    const after = decisions.findIndex((decision, place) => place > current && !decision);
    const first = decisions.findIndex((decision) => !decision);
    return Math.max(after >= 0 ? after : first, 0);
  }

  // what is stored; the current picture stays, unless an undo or another page leads elsewhere
  function take(leads) {
    decisions = [...model.get("decisions")];
    const page = JSON.stringify(model.get("page").map((one) => one.place));
    if (leads || page !== shown) current = model.get("current");
    shown = page;
  }

  function nameOf(decision) {
    const chosen = model.get("choices").find((one) => one.period === decision);
    return chosen ? chosen.name : WORDS[decision] || decision;
  }

  function show() {
    const page = model.get("page");
    counts.textContent = model.get("counts");
    status.classList.toggle("waits", unanswered > 0);
    said.textContent = isChoosing()
      ? "Stored. Learning, and choosing the next pictures…"
      : unanswered
        ? `${unanswered} to be stored…`
        : model.get("said");
    picture.replaceChildren(...(page.length ? large(page[current]) : ["Nothing is left to label."]));
    strip.replaceChildren(...page.map(small));
    estimate.textContent = model.get("estimate");
    curve.hidden = !model.get("curve");
    if (model.get("curve")) curve.src = model.get("curve");
    root.classList.toggle("choosing", isChoosing());
  }

  function large(one) {
    return [
      element("img", { src: one.picture, alt: one.title }),
      element("div", {}, element("b", {}, one.title), " ", one.facts),
    ];
  }

  function small(one, place) {
    const decision = decisions[place];
    const item = element(
      "li",
      {
        onclick: () => {
          current = place;
          show();
        },
      },
      element("img", { src: one.picture, alt: one.title }),
      element("span", {}, decision ? nameOf(decision) : "\u00a0"),
    );
    if (place === current) item.setAttribute("aria-current", "true");
    if (decision) item.classList.add("decided");
    return item;
  }

  function button(key, text, act) {
    // the box keeps the focus, so that the next key counts
    const onclick = () => {
      act();
      root.focus();
    };
    return element("button", { onclick, tabindex: -1 }, element("kbd", {}, key), ` ${text}`);
  }

  choices.append(
    ...model.get("choices").map((one) => button(one.key, one.name, () => decide(one.period))),
  );
  others.append(
    button("Space", "skip", () => decide(SKIP)),
    button("-", "no painting", () => decide(NO_PAINTING)),
    button("Backspace", "undo", undo),
    button("←", "look back", () => turn(-1)),
    button("→", "look on", () => turn(1)),
  );
  const answered = ({ act }) => {
    unanswered = Math.max(0, unanswered - 1);
    if (!unanswered) take(act === "undo");
    if (act === "undo") isUndoing = false;
    show();
  };
  model.on("msg:custom", answered);
  take(true);
  show();
  el.append(root);
  return () => model.off("msg:custom", answered);
}

export default { render };
