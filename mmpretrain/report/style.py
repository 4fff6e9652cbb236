"""How pages look."""

PAGE_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #f4f6f8; color: #22303c;
       font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, Arial, "DejaVu Sans", sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 36px 24px 64px; }
h1 { margin: 0; font-size: 27px; font-weight: 650; letter-spacing: -0.01em; }
h2 { margin: 0 0 4px; font-size: 17px; font-weight: 650; }
h3 { margin: 18px 0 4px; font-size: 14px; font-weight: 600; }
p { margin: 2px 0 12px; max-width: 78ch; color: #5a6975; font-size: 14px; }
section { margin-top: 18px; padding: 22px 26px 20px; background: #fff; border: 1px solid #e3e8ec; border-radius: 8px; }
.facts { display: flex; flex-wrap: wrap; gap: 12px; margin-top: 18px; }
.fact { flex: 1 1 150px; padding: 12px 16px; background: #fff; border: 1px solid #e3e8ec; border-radius: 8px; }
.fact b { display: block; font-size: 23px; font-weight: 600; line-height: 1.25; font-variant-numeric: tabular-nums; }
.fact span { display: block; color: #5a6975; font-size: 12.5px; line-height: 1.4; }
.wide { overflow-x: auto; }
.wide + p { margin-top: 10px; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 20px 6px 0; text-align: right; white-space: nowrap; border-bottom: 1px solid #e8edf0; }
th { color: #5a6975; font-weight: 500; font-size: 12.5px; }
th:first-child, td:first-child { text-align: left; padding-right: 28px; }
tr.ours td { font-weight: 650; }
.pair { display: flex; flex-wrap: wrap; gap: 12px 28px; align-items: flex-start; }
.pair > div { max-width: 100%; }
.pair h3:first-child { margin-top: 4px; }
.pair th, .pair td { padding-right: 12px; }
img { display: block; max-width: 100%; height: auto; }
.clip { margin-top: 14px; }
.clip div { margin-bottom: 3px; color: #5a6975; font-size: 13px; }
.clip img { margin-bottom: 4px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 22px; margin: 8px 0 0; font-size: 14px; }
dt { color: #5a6975; }
dd { margin: 0; overflow-wrap: anywhere; }
code { font: 13px ui-monospace, "DejaVu Sans Mono", monospace; }
"""
