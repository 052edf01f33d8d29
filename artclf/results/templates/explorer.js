'use strict';
// `state` is all that can change; `draw` shows it. Text from strangers is only ever a value in a lit-html template, so never markup.
// In a frame the data stand before it in the other page.
const data = document.getElementById('data').textContent || frameElement.previousElementSibling.content.textContent;
const {classes, parts, part: firstPart, images, bases, withoutSimilar} = JSON.parse(data);
const size = classes.length, batch = 30, everyPart = '*';
const filters = {part: firstPart, painter: '', source: '', from: '', to: '', low: '', high: '', threshold: 0};
const state = {...filters, unit: 'count', sort: 'loss', given: 0, predicted: 0, reach: [0, 0], shown: batch, open: [], heat: false};

const percent = share => share == null ? '–' : share > 0 && share < .005 ? '<1%' : `${Math.round(100 * share)}%`;
const tenths = share => Number.isFinite(share) ? `${(100 * share).toFixed(1)}%` : '–';
const paintings = count => `${count} painting${count === 1 ? '' : 's'}`;
const plain = text => text.normalize('NFD').replace(/\p{M}/gu, '').toLowerCase();
const titleOf = image => image.title || image.file.split('/').pop();
const known = values => [...new Set(values.filter(Boolean))].sort((a, b) => a.localeCompare(b));

const painters = known(images.map(image => image.artist)), sources = known(images.map(image => image.source));
for (const image of images) {
  image.year_ = Number(/\d{3,4}/.exec(image.year)?.[0] ?? NaN);
  image.artist_ = plain(image.artist);
}
const years = images.map(image => image.year_).filter(Number.isFinite);
const [firstYear, lastYear] = [years.reduce((a, b) => Math.min(a, b), Infinity), years.reduce((a, b) => Math.max(a, b), -Infinity)];

// What passes the filters, by cell; it is what matrix, figures and pictures are made from

const inPart = image => state.part === everyPart || image.part === state.part;
const isSure = image => !(image.probability < state.threshold / 100);
const within = (value, low, high, scale = 1) => (low === '' || value >= low / scale) && (high === '' || value <= high / scale);

function passing() {
  const words = plain(state.painter).split(/[\s,]+/);
  return images.filter(image => inPart(image) && (!state.source || image.source === state.source)
    && words.every(word => image.artist_.includes(word))
    && within(image.year_, state.from, state.to) && within(image.probability, state.low, state.high, 100));
}

function tabulate() {
  const kept = passing(), cells = classes.map(() => classes.map(() => ({list: [], sure: 0})));
  for (const image of kept) {
    const cell = cells[image.given][image.predicted];
    cell.list.push(image);
    cell.sure += isSure(image);
  }
  const sum = numbers => numbers.reduce((a, b) => a + b, 0);
  return {kept, cells, rows: cells.map(row => sum(row.map(cell => cell.sure))),
          columns: classes.map((_, at) => sum(cells.map(row => row[at].sure)))};
}

const last = value => value ?? -Infinity;
const orders = {
  loss: ['highest loss first', (a, b) => last(b.loss) - last(a.loss)],
  '-loss': ['lowest loss first', (a, b) => (a.loss ?? Infinity) - (b.loss ?? Infinity)],
  confidence: ['surest first', (a, b) => last(b.probability) - last(a.probability)],
  '-confidence': ['least sure first', (a, b) => last(a.probability) - last(b.probability)],
  year: ['oldest first', (a, b) => (a.year_ || Infinity) - (b.year_ || Infinity)],
};
const compare = () => (a, b) => orders[state.sort][1](a, b) || 0;  // Infinity less Infinity is no number

// Controls

const change = name => event => { state[name] = event.target.value; state.shown = batch; draw(); };
const choice = (name, label, options) => html`<label>${label} <select id=${name} @change=${change(name)}>
  ${options.map(([value, text]) => html`<option value=${value} .selected=${state[name] === value}>${text}</option>`)}</select></label>`;
const number = (name, label, placeholder) => html`<input id=${name} type="number" aria-label=${label} placeholder=${placeholder}
  .value=${state[name]} @input=${change(name)}>`;

const controls = () => html`<header>
  ${choice('part', 'Part', [...parts.map(name => [name, name]), ...parts.length > 1 ? [[everyPart, 'all parts']] : []])}
  ${choice('unit', 'Cells', [['count', 'number of paintings'], ['rate', '% of the given period'], ['column', '% of the predicted period']])}
  ${choice('sort', 'Pictures', Object.entries(orders).map(([name, [text]]) => [name, text]))}
  <span>Rows: given. Columns: predicted. Click a cell, or use the arrow keys and Enter.</span>
</header>
<div id="filters" role="group" aria-label="filters">
  ${painters.length ? html`<label>Painter <input id="painter" type="search" list="painters" placeholder="any"
    .value=${state.painter} @input=${change('painter')}></label>
    <datalist id="painters">${painterOptions}</datalist>` : nothing}
  ${sources.length > 1 ? choice('source', 'Source', [['', 'any'], ...sources.map(name => [name, name])]) : nothing}
  ${years.length ? html`<span>Years ${number('from', 'first year', firstYear)} – ${number('to', 'last year', lastYear)}</span>` : nothing}
  <span>Confidence ${number('low', 'lowest confidence in percent', 0)} – ${number('high', 'highest confidence in percent', 100)} %</span>
  <label>Grey out below <input id="threshold" type="range" min="0" max="100" .value=${String(state.threshold)} @input=${change('threshold')}>
    <output>${state.threshold}%</output></label>
  <button id="reset" ?disabled=${Object.keys(filters).every(name => String(state[name]) === String(filters[name]))}
    @click=${() => { Object.assign(state, filters, {shown: batch}); draw(); }}>Reset filters</button>
</div>`;
const painterOptions = painters.map(name => html`<option value=${name}></option>`);

function status({kept}) {
  const right = list => list.filter(image => image.given === image.predicted).length / list.length;
  const all = images.filter(inPart).length, sure = kept.filter(isSure);
  return html`<p id="status" role="status">${kept.length < all ? html`<b>${kept.length}</b> of ${paintings(all)} pass the filters`
    : html`<b>${kept.length}</b> painting${kept.length === 1 ? '' : 's'}`}, accuracy <b>${tenths(right(kept))}</b>.
    ${Number(state.threshold) ? html`At least ${state.threshold}% sure: <b>${sure.length}</b> of them
      (${tenths(sure.length / kept.length || 0)}), accuracy <b>${tenths(right(sure))}</b>.` : nothing}</p>`;
}

// Matrix

function matrix(table) {
  const room = Math.min(innerWidth > 700 ? .65 * innerWidth - 190 : innerWidth - 210, innerHeight - 330);
  const cell = Math.max(19, Math.min(52, Math.floor(room / size)));
  return html`<div id="matrix"><table role="grid" aria-label="confusion matrix"
      style="--cell: ${cell}px; --font: ${Math.max(10, Math.min(12.5, .45 * cell))}px" @click=${onClick} @keydown=${onKey}>
    <thead><tr><th>given ↓ predicted →</th>${classes.map((name, at) =>
      html`<th scope="col" title=${name} class=${at === state.predicted ? 'chosen' : ''}><span>${name}</span></th>`)}</tr></thead>
    <tbody>${classes.map((name, given) => html`<tr>
      <th scope="row" title=${name} class=${given === state.given ? 'chosen' : ''}>${name}</th>
      ${classes.map((_, predicted) => drawCell(table, given, predicted))}</tr>`)}</tbody></table></div>`;
}

function drawCell({cells, rows, columns}, given, predicted) {
  const {list, sure} = cells[given][predicted], unsure = list.length - sure;
  const share = sure / Math.max(state.unit === 'column' ? columns[predicted] : rows[given], 1);
  const says = `${sure}, ${percent(share)}${unsure ? `; ${unsure} below the threshold` : ''}`;
  const kind = !sure && unsure ? 'unsure' : given === predicted ? 'right' : 'wrong';
  // the root makes rare confusions visible beside the diagonal
  return html`<td role="gridcell" class=${kind} style="--share: ${Math.sqrt(share)}" data-cell="${given},${predicted}"
    tabindex=${given === state.reach[0] && predicted === state.reach[1] ? 0 : -1}
    aria-selected=${given === state.given && predicted === state.predicted}
    aria-label="given ${classes[given]}, predicted ${classes[predicted]}: ${says}"
    title="${classes[given]} → ${classes[predicted]}: ${says}"
    >${!sure ? '' : state.unit === 'count' ? sure : percent(share).replace('%', '')}</td>`;
}

const place = cell => cell.dataset.cell.split(',').map(Number);

function select(cell) {
  state.reach = [state.given, state.predicted] = place(cell);
  state.shown = batch;
  draw();
  cell.focus();
  document.getElementById('panel').scrollTop = 0;
}

function onClick(event) {
  const cell = event.target.closest('td');
  if (cell) select(cell);
}

// One cell can be reached with Tab, the others from it with the arrows (the ARIA grid pattern)
const steps = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]};
function onKey(event) {
  const cell = event.target.closest('td'), step = steps[event.key];
  if (!cell || !step && event.key !== 'Enter' && event.key !== ' ') return;
  event.preventDefault();
  if (!step) return select(cell);
  const [given, predicted] = place(cell), next = document.querySelector(`td[data-cell="${given + step[0]},${predicted + step[1]}"]`);
  if (!next) return;
  state.reach = place(next);
  draw();
  next.focus();
}

// Pictures of the chosen cell

function panel({cells}) {
  const {given, predicted} = state, {list, sure} = cells[given][predicted], order = [...list].sort(compare());
  const all = cells[given].reduce((sum, cell) => sum + cell.list.length, 0), left = list.length - state.shown;
  const where = state.part === everyPart ? 'in all parts' : `in ${state.part}`;
  return html`<section id="panel" aria-live="polite">
    <h2 id="heading">${given === predicted ? `${classes[given]}, recognised` : `${classes[given]}, taken for ${classes[predicted]}`}</h2>
    <p id="note">${list.length} of ${all} paintings of ${classes[given]} ${where}${list.length > 1 ? `, ${orders[state.sort][0]}` : ''}${
      sure < list.length ? `; ${list.length - sure} below the threshold` : ''}.</p>
    <div id="cards">${order.slice(0, state.shown).map(image => card(image, order))}</div>
    ${left > 0 ? html`<button id="more" @click=${() => { state.shown += batch; draw(); }}>Show ${Math.min(left, batch)} more</button>` : nothing}
  </section>`;
}

const thumbnail = image => image.thumb ? html`<img src=${image.thumb} alt="" decoding="async">` : html`<span class="tile">no picture</span>`;
const facts = image => [image.artist, image.year].filter(Boolean).join(', ');

const card = (image, list) => html`<article class="card ${isSure(image) ? '' : 'unsure'}" data-file=${image.file}>
  <button class="open" aria-label="Look at ${titleOf(image)}" @click=${() => look([{image, list}])}>${thumbnail(image)}</button>
  <div><b class="title">${titleOf(image)}</b> <small>${facts(image)}</small>
    <div><span>given ${classes[image.given]},</span> <span>predicted ${classes[image.predicted]}${isSure(image) ? '' : ' (unsure)'}</span></div>${bars(image, 3)}</div>
</article>`;

// The likeliest classes, and the given one where it isn't among them
const bars = (image, count) => image.top.filter(([index], rank) => rank < count || index === image.given).map(([index, share]) =>
  html`<div class="bar ${index === image.given ? 'right' : 'wrong'}"><span>${classes[index]}${index === image.given ? ' (given)' : ''}</span>
    <span>${percent(share)}</span><i style="width: ${100 * share}%"></i></div>`);

// One picture: `state.open` is the way that led to it, the picture itself last

const large = new Map();  // file → its address, '' where it can't be had

function look(way) {
  state.open = way;
  draw();
  const dialog = document.getElementById('viewer');
  if (way.length && !dialog.open) dialog.showModal();
  if (!way.length) return dialog.close();
  dialog.scrollTop = 0;
  if (!dialog.contains(document.activeElement)) document.getElementById('close').focus();  // what had it is gone
  const {file} = way.at(-1).image;
  if (!large.has(file)) load(file, addresses(file));
}

// JupyterLab and Notebook serve the files beside a notebook at /files/, not at the address that they show
function addresses(file) {
  const from = document.baseURI.replace(/^(https?:\/\/.*?)\/(?:lab|doc|notebooks)(?:\/workspaces\/[^/]+)?(?:\/tree)?\/(.*)$/, '$1/files/$2');
  const path = file.split('/').map(encodeURIComponent).join('/');
  return from.startsWith('about:') ? [] : bases.map(base => new URL(base + path, from).href);
}

function load(file, [address, ...others]) {
  if (!address) { large.set(file, ''); return draw(); }
  const image = new Image();
  image.onload = () => { large.set(file, address); draw(); };
  image.onerror = () => load(file, others);
  image.src = address;
}

function step(by) {
  const {image, list} = state.open.at(-1), next = list[list.indexOf(image) + by];
  if (next) look([{image: next, list}]);
}

function onViewerKey(event) {
  if (state.open.length !== 1 || event.target.type === 'checkbox') return;
  if (event.key === 'ArrowLeft') step(-1);
  if (event.key === 'ArrowRight') step(1);
}

const viewer = () => html`<dialog id="viewer" aria-label="one painting" @close=${() => { if (state.open.length) look([]); }}
  @keydown=${onViewerKey} @click=${event => { if (event.target.id === 'viewer' && isOutside(event)) look([]); }}>
  ${state.open.length ? sheet(state.open.at(-1)) : nothing}</dialog>`;

// The dialog is the target of a click on its backdrop, and of one on its own empty paper
function isOutside({target, clientX, clientY}) {
  const box = target.getBoundingClientRect();
  return clientX < box.left || clientX > box.right || clientY < box.top || clientY > box.bottom;
}

function sheet({image, list}) {
  const at = list.indexOf(image), before = state.open.at(-2);
  const address = large.get(image.file), source = address || image.thumb;
  return html`<nav>
    ${before ? html`<button id="back" @click=${() => look(state.open.slice(0, -1))}>‹ Back to ${titleOf(before.image)}</button>`
      : html`<button id="previous" aria-disabled=${at < 1} @click=${() => step(-1)} aria-label="previous painting">‹</button>
        <button id="next" aria-disabled=${at + 1 >= list.length} @click=${() => step(1)} aria-label="next painting">›</button>
        <span>${at + 1} of ${list.length}</span>`}
    <button id="close" autofocus @click=${() => look([])}>Close</button></nav>
  <div class="sheet"><figure>
    <div class="canvas">${source ? html`<img class="picture" src=${source} alt=${titleOf(image)} @load=${fit}>` : html`<div class="tile">no picture</div>`}
      ${state.heat && image.saliency && source ? html`<img class="heat" src=${image.saliency} alt="">` : nothing}</div>
    ${address === '' ? html`<p id="fallback">${image.thumb ? 'This is the thumbnail: t' : 'T'}he larger picture isn't in the data folder beside this page.</p>`
      : nothing}</figure>
  <div class="facts"><h2>${titleOf(image)}</h2>
    <p>${[facts(image), image.source, `part ${image.part}`].filter(Boolean).map(text => html`<small>${text}</small>`)}</p>
    <p>given <b>${classes[image.given]}</b>, predicted <b>${classes[image.predicted]}</b><small>loss ${image.loss?.toFixed(2) ?? '–'}</small></p>
    ${bars(image, 5)}
    ${image.saliency ? html`<label><input id="heat-on" type="checkbox" .checked=${state.heat}
      @change=${event => { state.heat = event.target.checked; draw(); }}> Show what spoke for ${classes[image.predicted]} (stages CAM; the brighter, the more)</label>` : nothing}
  </div></div>
  <section id="similar"><h3>Most similar pictures in train</h3>${image.similar.length ? html`<div>${image.similar.map(similar)}</div>`
    : html`<p>${withoutSimilar}</p>`}</section>`;
}

const fit = ({target}) => target.parentNode.style.setProperty('--aspect', target.naturalWidth / target.naturalHeight);

const similar = ([index, cosine]) => html`<button class="open" data-file=${images[index].file}
  @click=${() => look([...state.open, {image: images[index], list: []}])}>
  ${thumbnail(images[index])}<b>${classes[images[index].given]}</b><span>${titleOf(images[index])}</span>
  <small>${facts(images[index])}</small><small>${images[index].part}, cosine ${cosine.toFixed(2)}</small></button>`;

function draw() {
  const table = tabulate();
  render(html`${controls()}${status(table)}<main>${matrix(table)}${panel(table)}</main>${viewer()}`, document.getElementById('explorer'));
}

// It opens on the commonest confusion, so that a reader sees at once what a cell holds
function commonest() {
  const {cells} = tabulate(), pairs = classes.flatMap((_, given) => classes.map((_, predicted) => [given, predicted]));
  const count = ([given, predicted]) => cells[given][predicted].list.length * (given === predicted ? 1e-9 : 1);
  return pairs.reduce((best, pair) => count(pair) > count(best) ? pair : best, [0, 0]);
}

state.reach = [state.given, state.predicted] = commonest();
addEventListener('resize', draw);
draw();
