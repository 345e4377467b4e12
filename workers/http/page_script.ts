// What the page does, in the browser.

export const SCRIPT = `
const KEPT = 60;
const byId = (id) => document.getElementById(id);
const make = (tag, className, text) => {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
};
const number = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });
const svg = (tag) => document.createElementNS('http://www.w3.org/2000/svg', tag);

// ── the loops, by the event stream ──

const cards = new Map();
let here = -1;

function cardOf(loop) {
  const known = cards.get(loop);
  if (known) return known;
  const root = make('article', 'loop');
  root.style.setProperty('--loop', loop);
  const head = make('header');
  const where = make('span', 'quiet');
  head.append(make('h2', '', 'loop ' + loop), where);
  const rate = make('p', 'rate');
  const graph = svg('svg');
  graph.setAttribute('viewBox', '0 0 ' + (KEPT - 1) + ' 100');
  graph.setAttribute('preserveAspectRatio', 'none');
  graph.setAttribute('aria-hidden', 'true');
  const area = svg('polygon');
  const curve = svg('polyline');
  graph.append(area, curve);
  const bar = make('div', 'bar');
  const fill = make('i');
  bar.append(fill);
  const first = make('p', 'facts');
  const second = make('p', 'facts');
  root.append(head, rate, graph, bar, first, second);
  const card = { root, where, rate, area, curve, fill, first, second, rates: [] };
  cards.set(loop, card);
  const after = [...cards.keys()].filter((id) => id > loop).sort((a, b) => a - b)[0];
  byId('loops').insertBefore(root, after === undefined ? null : cards.get(after).root);
  return card;
}

function fact(value, unit) {
  const span = make('span');
  span.append(make('b', '', value), ' ' + unit);
  return span;
}

function draw(status) {
  for (const dd of document.querySelectorAll('[data-of]'))
    dd.textContent = number.format(status[dd.dataset.of]);
  const seen = new Set();
  for (const loop of status.loops) {
    seen.add(loop.loop);
    const card = cardOf(loop.loop);
    card.root.classList.toggle('here', loop.loop === here);
    card.where.textContent = 'thread ' + loop.threadId + ' · gen ' + loop.generation;
    const rate = number.format(loop.requestsPerSecond);
    card.rate.replaceChildren(rate, make('small', '', ' requests/s'));
    card.rates.push(loop.requestsPerSecond);
    if (card.rates.length > KEPT) card.rates.shift();
    const busy = Math.round(loop.utilization * 100);
    card.fill.style.width = busy + '%';
    card.first.replaceChildren(fact(busy + ' %', 'busy'),
      fact(number.format(loop.connections), loop.connections === 1 ? 'connection' : 'connections'));
    card.second.replaceChildren(fact(number.format(loop.requests), 'requests'),
      make('span', '', loop.backend + ', ' + loop.waker));
  }
  for (const [loop, { root }] of cards) {
    if (seen.has(loop)) continue;
    root.remove();
    cards.delete(loop);
  }
  // All on one scale.
  const most = Math.max(10, ...[...cards.values()].flatMap(({ rates }) => rates));
  for (const { rates, area, curve } of cards.values()) {
    const start = KEPT - rates.length;
    const points = rates.map((rate, at) => (start + at) + ',' + (100 - (rate / most) * 100));
    curve.setAttribute('points', points.join(' '));
    area.setAttribute('points', start + ',100 ' + points.join(' ') + ' ' + (KEPT - 1) + ',100');
  }
  byId('all').hidden = false;
}

const live = byId('live');
function say(text, on) {
  live.hidden = false;
  live.textContent = text;
  live.classList.toggle('on', on);
}

if ('EventSource' in window) {
  const source = new EventSource('/events');
  source.addEventListener('hello', ({ data }) => {
    const { loop, generation } = JSON.parse(data);
    here = loop;
    say('live from loop ' + loop + ' · gen ' + generation, true);
  });
  source.addEventListener('loops', ({ data }) => draw(JSON.parse(data)));
  source.addEventListener('error', () => say('connecting …', false));
}

// ── who answers ──

const ask = byId('ask');
const strip = ask.querySelector('ol');
const count = byId('count');
const button = ask.querySelector('button');
ask.hidden = false;

async function send() {
  button.disabled = true;
  const counts = new Map();
  strip.replaceChildren();
  try {
    for (let i = 0; i < 24; i++) {
      const response = await fetch('/loop.json?fresh', { cache: 'no-store' });
      const { loop } = await response.json();
      const item = make('li', '', loop);
      item.style.setProperty('--loop', loop);
      item.title = 'loop ' + loop;
      strip.append(item);
      counts.set(loop, (counts.get(loop) ?? 0) + 1);
      count.textContent = [...counts].sort((a, b) => a[0] - b[0])
        .map(([id, times]) => 'loop ' + id + ': ' + times).join(', ');
      await new Promise((resolve) => setTimeout(resolve, 40));
    }
  } catch {
    count.textContent = 'The server does not answer any more.';
  }
  button.disabled = false;
}

button.addEventListener('click', send);
send();
`;
