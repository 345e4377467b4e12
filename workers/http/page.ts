// The page that shows what the loops do: one document that needs nothing else, and lives by the
// event stream.

import { SCRIPT } from './page_script.js';
import { STYLE } from './page_style.js';

export interface Facts {
  loop: number;
  generation: number;
  threadId: number;
  backend: string;
  waker: string;
  pid: number;
  connections: number;
  requests: number;
}

/** All of it comes from this process, none of it from the request, so nothing needs escaping. */
export function page(is: Facts, loops: number): string {
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>loop ${is.loop} · multiloop</title>
<link rel="icon" href="data:,">
<style>${STYLE}</style>
<header>
<p class="mark"><svg viewBox="0 0 32 32" aria-hidden="true"><circle cx="11" cy="16" r="7"/>
<circle cx="21" cy="16" r="7"/></svg>multiloop</p>
<p id="live" role="status" hidden></p>
</header>
<main>
<section class="hero" style="--loop: ${is.loop}">
<h1>loop <b>${is.loop}</b></h1>
<p>answered this request, its ${ordinal(is.requests)}. ${
    loops === 1 ? 'It is alone' : `It is one of ${loops}`
  } in this process, each in a thread of its own.</p>
<dl>
<div><dt>backend<dd>${is.backend}</div>
<div><dt>waker<dd>${is.waker}</div>
<div><dt>generation<dd>${is.generation}</div>
<div><dt>thread<dd>${is.threadId}</div>
<div><dt>process<dd>${is.pid}</div>
<div><dt>connections<dd>${is.connections}</div>
</dl>
</section>
<section id="all" hidden>
<dl class="totals">
<div><dt>requests a second<dd data-of="requestsPerSecond">–</div>
<div><dt>connections<dd data-of="connections">–</div>
<div><dt>WebSockets<dd data-of="webSockets">–</div>
<div><dt>event streams<dd data-of="eventStreams">–</div>
</dl>
<div id="loops"></div>
</section>
<section id="ask" hidden>
<h2>Who answers?</h2>
<p class="quiet">24 requests, each over a connection of its own.</p>
<ol></ol>
<p class="quiet" id="count" role="status"></p>
<button type="button">Ask again</button>
</section>
</main>
<footer>
<p>Also here: <a href="/status.json">/status.json</a>, <a href="/loop.json">/loop.json</a>, the
event stream <a href="/events">/events</a>, and a WebSocket at <code>/echo</code>.
To serve files: <code>multiloop serve http FOLDER</code></p>
</footer>
<script>${SCRIPT}</script>
</html>
`;
}

function ordinal(number: number): string {
  const tens = number % 100;
  const suffix = tens > 10 && tens < 14 ? 'th' : (['th', 'st', 'nd', 'rd'][number % 10] ?? 'th');
  return `${number}${suffix}`;
}
