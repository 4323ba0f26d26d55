"""How a page and its charts look: colours for light and dark, and what is drawn with them."""

SERIES = 8
LIGHT = """--paper: #fbfbfa; --ink: #1b1d20; --soft: #626a73; --grid: #e4e6e9; --card: #ffffff; --edge: #dde0e4; --good: #1a7f4b; --bad: #b3401f;
  --c0: #2563a8; --c1: #c2571a; --c2: #23876b; --c3: #9b3f86; --c4: #8a7a12; --c5: #3f8fb0; --c6: #a83a4a; --c7: #5a5f9e;"""
DARK = """--paper: #15171a; --ink: #e6e8ea; --soft: #9aa2ab; --grid: #2b2f34; --card: #1c1f23; --edge: #2f343a; --good: #58c08a; --bad: #ee8a66;
  --c0: #6ea8e8; --c1: #ee955c; --c2: #58c2a0; --c3: #d584c0; --c4: #cdbb4d; --c5: #7cc4e0; --c6: #ea808e; --c7: #9ba0e4;"""
FONT = 'system-ui, -apple-system, "Segoe UI", "Liberation Sans", sans-serif'
MARKS = """text { fill: var(--soft); } .axis, .name { fill: var(--ink); } .grid { stroke: var(--grid); } .window { font-size: 11px; }
.rule { stroke: var(--ink); stroke-width: 1.2; } .shade { fill: var(--grid); opacity: .5; } .w-measurement { fill: var(--c0); opacity: .08; }
.throttled { fill: var(--bad); } .line, .faint, .counter, .pareto, .roof, .cross { fill: none; stroke-width: 1.7; stroke-linejoin: round; }
.faint { opacity: .3; stroke-width: 1.1; } .counter { stroke: var(--ink); opacity: .55; stroke-width: 1.2; stroke-dasharray: 4 4; }
.pareto { stroke: var(--soft); stroke-width: 1.2; stroke-dasharray: 2 4; } .roof { stroke: var(--ink); stroke-width: 1.4; } .heat { fill: none; stroke: var(--c1); stroke-width: 1.4; }
.gap { fill: var(--card); } .band { opacity: .25; } .bar { stroke-width: 9; stroke-linecap: round; opacity: .3; }
""" + "".join(
    f".c{n} {{ stroke: var(--c{n}); }} .dot.c{n}, .band.c{n} {{ fill: var(--c{n}); stroke: none; }} "
    f".dot.hollow.c{n} {{ fill: var(--card); stroke: var(--c{n}); stroke-width: 2; }} .k{n} {{ background: var(--c{n}); }}\n"
    for n in range(SERIES)
)
PAGE = """* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 2.2rem 1.5rem 4rem; background: var(--paper); color: var(--ink); font: 16px/1.55 FONT; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .6rem; overflow-wrap: anywhere; } h2 { font-size: 1.2rem; margin: 2.8rem 0 .5rem; }
h3 { font-size: 1rem; font-weight: 600; margin: 1.2rem 0 .3rem; overflow-wrap: anywhere; }
p { margin: .4rem 0; max-width: 48rem; } .lead { font-size: 1.15rem; } .soft, .note { color: var(--soft); } .note { font-size: .9rem; }
figure { background: var(--card); border: 1px solid var(--edge); border-radius: 8px; padding: .7rem; margin: .8rem 0; overflow-x: auto; }
svg { display: block; width: 100%; height: auto; overflow: visible; font: 11px FONT; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: 0 1rem; } .two > div { min-width: 0; } .two svg { font-size: 16px; }
.table { overflow-x: auto; } table { border-collapse: collapse; font-size: .92rem; margin: .5rem 0; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .34rem .8rem; border-bottom: 1px solid var(--grid); white-space: nowrap; vertical-align: top; }
th:first-child, td:first-child { text-align: left; padding-left: 0; } th { color: var(--soft); font-weight: 600; }
td .of { color: var(--soft); font-size: .85em; } td.text, th.text { text-align: left; }
.good { color: var(--good); } .bad { color: var(--bad); } summary { cursor: pointer; } td details ul { text-align: left; white-space: normal; min-width: min(18rem, 52vw); margin: .3rem 0; padding-left: 1.1rem; }
.key { display: inline-block; width: .72em; height: .72em; border-radius: 50%; margin-right: .45em; }
code, pre { font: .87rem/1.5 ui-monospace, "Liberation Mono", monospace; }
pre { overflow-x: auto; background: var(--card); border: 1px solid var(--edge); border-radius: 8px; padding: .7rem .9rem; }
.zoomed > svg { display: none; } .uplot { font-family: inherit; } .u-legend { font-size: .85rem; color: var(--soft); } .u-legend th { font-weight: 400; } .u-legend th, .u-legend td { border: 0; } .u-legend .u-value { color: var(--ink); }
.u-select { background: var(--ink); opacity: .1; } .hint { color: var(--soft); font-size: .85rem; text-align: center; }
@media (max-width: 640px) { body { padding: 1.2rem .8rem 3rem; } figure { padding: .4rem; } svg, .two svg { font-size: 18px; } .window { font-size: 15px; } h1 { font-size: 1.4rem; }
  td:first-child { white-space: normal; overflow-wrap: anywhere; min-width: 6.5rem; } th, td { padding: .34rem .4rem; } td .of { display: block; }
  th { white-space: normal; overflow-wrap: anywhere; min-width: 3.5rem; } pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  .cards, .cards tbody, .cards tr { display: block; } .cards tr:first-child { display: none; } .cards tr { margin: 0 0 1rem; }
  .cards td { display: flex; justify-content: space-between; gap: 1rem; min-width: 0; } .cards td:first-child { display: block; font-weight: 600; }
  .cards td:empty { display: none; } .cards td::before { content: attr(data-head); color: var(--soft); } }
@media print { body { max-width: none; } figure { break-inside: avoid; } .zoomed > svg { display: block; } .uplot, .hint { display: none; } }
""".replace("FONT", FONT)
STYLE = f":root {{ {LIGHT} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {DARK} }} }}\n@media print {{ :root {{ {LIGHT} }} }}\n{PAGE}{MARKS}"
ALONE = f"svg {{ {LIGHT} background: #ffffff; font: 12px {FONT}; }}\n{MARKS}"
