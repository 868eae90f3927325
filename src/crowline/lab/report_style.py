"""The style sheet of the matrix page: calm on a screen, complete in print, readable without colour."""

STYLE = """
:root {
  --paper: #fbfbf9; --ink: #1f2933; --soft: #5f6b76; --line: #d9dee2; --tip: #1f2933; --tip-ink: #fbfbf9;
  --direct: #cfe6d8; --direct-ink: #12422b; --lan: #b9dcd6; --lan-ink: #0f4440;
  --relay: #f6dfa8; --relay-stripe: #efd18a; --relay-ink: #573c00;
  --hub: #e9c3a4; --hub-stripe: #dfae87; --hub-ink: #5c2f0c;
  --failed: #7c3a3f; --failed-ink: #ffffff; --none: #eef0f1;
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 86rem; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.6rem; font-weight: 600; margin: 0 0 .25rem; }
h2 { font-size: 1.1rem; font-weight: 600; margin: 2.5rem 0 .75rem; }
p { margin: .5rem 0; max-width: 60rem; }
a { color: inherit; }
.about { color: var(--soft); margin: 0; }
.about span { white-space: nowrap; }
.numbers { display: flex; flex-wrap: wrap; gap: .75rem 2.5rem; margin: 1.5rem 0 1rem; padding: 0; }
.numbers div { min-width: 6rem; }
.numbers dt { color: var(--soft); font-size: .85rem; }
.numbers dd { margin: 0; font-size: 1.45rem; font-variant-numeric: tabular-nums; }
.bar { display: flex; height: .7rem; border-radius: .2rem; overflow: hidden; max-width: 60rem; }
.bar i { display: block; }
table { border-collapse: separate; border-spacing: 2px; font-variant-numeric: tabular-nums; }
.heat th { font-weight: 500; font-size: .85rem; white-space: nowrap; }
.heat thead th { vertical-align: bottom; padding: 0 0 .3rem; }
.heat thead th span { writing-mode: vertical-rl; transform: rotate(180deg); text-align: left; }
.heat thead th.total span { writing-mode: horizontal-tb; transform: none; }
.heat thead th b, .heat tbody th b { color: var(--soft); font-weight: 400; font-size: .75rem; }
.heat thead th b { display: block; }
.heat tbody th { text-align: right; padding-right: .6rem; }
.heat tbody th b { padding-left: .4rem; }
.heat td { position: relative; width: 2.85rem; min-width: 2.85rem; height: 3.1rem; padding: 0;
  text-align: center; border-radius: .2rem; }
.heat td > a { display: block; height: 100%; padding-top: .25rem; text-decoration: none; line-height: 1.2; }
.heat td strong { display: block; font-size: 1rem; font-weight: 600; }
.heat td i { font-size: .7rem; font-style: normal; font-weight: 400; padding-left: .15rem; }
.heat td small { display: block; font-size: .68rem; opacity: .85; }
.heat td.total { width: auto; padding: 0 .2rem 0 .6rem; text-align: right; font-size: .85rem;
  white-space: nowrap; }
.heat .tip { display: none; position: absolute; z-index: 2; top: calc(100% + 4px); left: 0; width: 19rem;
  padding: .6rem .75rem; border-radius: .3rem; background: var(--tip); color: var(--tip-ink);
  text-align: left; font-size: .82rem; line-height: 1.4; box-shadow: 0 4px 14px rgb(0 0 0 / .25); }
.heat .tip.left { left: auto; right: 0; }
.heat td:hover .tip, .heat td:focus-within .tip { display: block; }
.heat td > a:focus-visible, .heat td:hover { outline: 2px solid var(--ink); outline-offset: 0; }
.direct { background: var(--direct); color: var(--direct-ink); }
.lan { background: var(--lan); color: var(--lan-ink); }
.relay { color: var(--relay-ink);
  background: repeating-linear-gradient(135deg, var(--relay) 0 6px, var(--relay-stripe) 6px 8px); }
.hub { color: var(--hub-ink);
  background: repeating-linear-gradient(45deg, var(--hub) 0 4px, var(--hub-stripe) 4px 7px); }
.failed { background: var(--failed); color: var(--failed-ink); }
.none { background: var(--none); color: var(--soft); }
.legend { display: flex; flex-wrap: wrap; gap: .5rem 1.75rem; padding: 0; margin: 1rem 0; list-style: none;
  font-size: .9rem; }
.legend span { display: inline-block; width: 1.7rem; margin-right: .5rem; border-radius: .2rem;
  text-align: center; font-weight: 600; }
.words { width: 100%; border-collapse: collapse; font-size: .9rem; }
.words th, .words td { text-align: left; vertical-align: top; padding: .3rem .75rem .3rem 0;
  border-bottom: 1px solid var(--line); }
.words thead th { color: var(--soft); font-weight: 500; }
.words .why { width: 45%; }
.words .number { text-align: right; white-space: nowrap; }
.words .mark { display: inline-block; width: 1.7rem; border-radius: .2rem; text-align: center;
  font-weight: 600; }
.words tr:target { outline: 2px solid var(--ink); }
.places dt { font-weight: 600; margin-top: .6rem; }
.places dd { margin: 0; max-width: 60rem; }
.places b { color: var(--soft); font-weight: 400; padding-right: .35rem; }
@media screen and (max-width: 60rem) { .scroll { overflow-x: auto; padding-bottom: 9rem; } }
@media print {
  @page { size: A4 portrait; margin: 10mm; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  html { font-size: 9pt; }
  body { max-width: none; padding: 0; background: #fff; font-size: 8.5pt; line-height: 1.35; }
  h1 { font-size: 14pt; }
  h2 { font-size: 10.5pt; margin: 4mm 0 2mm; }
  h2.break { break-before: page; }
  .numbers { gap: 1mm 5mm; margin: 3mm 0 2mm; }
  .numbers div { min-width: 0; }
  .numbers dd { font-size: 11pt; }
  .numbers dt, .legend { font-size: 8pt; }
  .heat { border-spacing: .4mm; }
  .heat th { font-size: 6.5pt; }
  .heat thead th b, .heat tbody th b { font-size: 5.5pt; }
  .heat tbody th { padding-right: 1mm; }
  .heat td { width: 6.4mm; min-width: 6.4mm; height: 7.4mm; outline: .2mm solid #8a949c; }
  .heat td.corner, .heat td.total { outline: none; font-size: 6.5pt; padding: 0 0 0 1mm; }
  .heat td > a { padding-top: .3mm; line-height: 1.1; }
  .heat td strong { font-size: 7pt; }
  .heat td small, .heat td i { font-size: 4.6pt; }
  .heat td i { padding-left: .2mm; }
  .heat .tip { display: none !important; }
  .words { font-size: 7.5pt; }
  .words th, .words td { padding: .5mm 2mm .5mm 0; white-space: nowrap; }
  .words td.why { white-space: normal; }
  tr, dt, dd { break-inside: avoid; }
  dt { break-after: avoid; }
}
"""
