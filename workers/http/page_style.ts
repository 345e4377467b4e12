// How the page looks: light and dark, wide and narrow.

// A loop's colour is a step of the golden angle further than the one before, so that neighbours
// never look alike, however many there are.
export const STYLE = `
:root { color-scheme: light dark; --ink: #171a21; --quiet: #626a79; --paper: #f4f5f8;
  --card: #fff; --line: #e0e3e9; --track: #eceef2; --light: 44%; --full: 65%;
  --ok: #1a8f4c; --bad: #c2410c; --shadow: 0 1px 2px rgb(20 25 40 / .06); }
@media (prefers-color-scheme: dark) { :root { --ink: #e9ebf1; --quiet: #979fae;
  --paper: #111317; --card: #191c22; --line: #2a2e37; --track: #252932; --light: 66%;
  --full: 70%; --ok: #4ade80; --bad: #fb923c; --shadow: none; } }
* { box-sizing: border-box; }
[hidden] { display: none !important; }
body { margin: 0; min-height: 100vh; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif; }
header, main, footer { max-width: 62rem; margin: 0 auto; padding: 0 1.25rem; }
header { display: flex; align-items: center; justify-content: space-between; height: 4rem; }
p { margin: 0; }
.mark { display: flex; align-items: center; gap: .5rem; font-weight: 650; letter-spacing: -.01em; }
.mark svg { width: 1.9rem; height: 1.9rem; fill: none; stroke: currentColor; stroke-width: 2.4; }
.quiet, #live { color: var(--quiet); font-size: .9rem; }
#live { white-space: nowrap; }
#live::before { content: ''; display: inline-block; width: .55rem; height: .55rem;
  margin-right: .45rem; border-radius: 50%; background: var(--bad); }
#live.on::before { background: var(--ok); }
section { margin: 0 0 2.25rem; }
.hero { padding-top: 1rem; }
h1 { margin: 0 0 .5rem; font-size: clamp(3.25rem, 13vw, 6rem); font-weight: 300; line-height: 1.05;
  letter-spacing: -.035em; }
h1 b, .loop, li { --hue: calc(212 + var(--loop) * 137.5); }
h1 b, .loop h2 { color: hsl(var(--hue) var(--full) var(--light)); }
h1 b { font-weight: 650; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: 1px;
  margin: 1.5rem 0 0; border: 1px solid var(--line); border-radius: .75rem; overflow: hidden;
  background: var(--line); box-shadow: var(--shadow); }
dl div { padding: .65rem 1rem; background: var(--card); }
dt { color: var(--quiet); font-size: .82rem; }
dd { margin: 0; font-size: 1.1rem; font-variant-numeric: tabular-nums; }
.totals { margin: 0 0 1rem; }
.totals dd { font-size: 1.65rem; font-weight: 600; letter-spacing: -.02em; line-height: 1.25; }
#loops { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(14rem, 1fr)); }
.loop { padding: .9rem 1rem 1rem; border: 1px solid var(--line); border-radius: .75rem;
  background: var(--card); box-shadow: var(--shadow); }
.loop.here { border-color: hsl(var(--hue) var(--full) var(--light) / .7); }
.loop header { padding: 0; height: auto; max-width: none; align-items: baseline; }
h2 { margin: 0 0 .15rem; font-size: 1.1rem; font-weight: 650; }
.loop h2 { margin: 0; }
.rate { font-size: 1.5rem; font-weight: 600; letter-spacing: -.02em; line-height: 1.4;
  font-variant-numeric: tabular-nums; }
.rate small { font-size: .82rem; font-weight: 400; letter-spacing: 0; color: var(--quiet); }
.loop svg { display: block; width: 100%; height: 2.75rem; margin: .2rem 0 .7rem;
  overflow: visible; }
.loop polyline { fill: none; stroke: hsl(var(--hue) var(--full) var(--light)); stroke-width: 1.6;
  stroke-linejoin: round; vector-effect: non-scaling-stroke; }
.loop polygon { fill: hsl(var(--hue) var(--full) var(--light) / .13); }
.bar { height: .4rem; border-radius: .2rem; background: var(--track); overflow: hidden; }
.bar i { display: block; height: 100%; width: 0; border-radius: .2rem;
  background: hsl(var(--hue) var(--full) var(--light)); transition: width .4s; }
.facts { display: flex; justify-content: space-between; gap: .5rem; margin-top: .55rem;
  color: var(--quiet); font-size: .85rem; font-variant-numeric: tabular-nums; }
.facts b { color: var(--ink); font-weight: 600; }
ol { display: flex; flex-wrap: wrap; gap: .3rem; min-height: 2rem; margin: .8rem 0;
  padding: 0; list-style: none; }
li { min-width: 2rem; padding: 0 .35rem; border-radius: .4rem; color: #fff; line-height: 2rem;
  text-align: center; font-size: .85rem; font-weight: 600;
  background: hsl(var(--hue) 60% 40%); }
button { margin-top: .8rem; padding: .5rem 1.1rem; border: 1px solid var(--line);
  border-radius: .5rem; background: var(--card); color: inherit; font: inherit; cursor: pointer; }
button:hover { border-color: var(--quiet); }
button:disabled { opacity: .5; cursor: default; }
footer { padding: 1.25rem; border-top: 1px solid var(--line); color: var(--quiet);
  font-size: .9rem; }
a { color: inherit; }
code { padding: .1em .35em; border-radius: .3em; background: var(--track); font-size: .92em; }
@media (max-width: 30rem) { .hero dl, .totals { grid-template-columns: repeat(2, 1fr); }
  .totals dd { font-size: 1.35rem; } }
@media (prefers-reduced-motion: reduce) { .bar i { transition: none; } }
`;
