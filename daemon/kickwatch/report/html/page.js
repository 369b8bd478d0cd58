"use strict";
(() => {
  const root = document.documentElement;
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const announce = (text) => { document.getElementById("announced").textContent = text; };
  const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";

  const theme = document.getElementById("theme");
  const showTheme = () => theme.setAttribute("aria-pressed", String(dark()));
  theme.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; showTheme(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
  showTheme();

  const tables = document.getElementById("tables");
  tables.addEventListener("click", () => {
    const open = tables.getAttribute("aria-pressed") !== "true";
    tables.setAttribute("aria-pressed", String(open));
    for (const each of document.querySelectorAll("details")) { each.open = open; }
  });

  document.getElementById("data").addEventListener("click", () => {
    const blob = new Blob([document.getElementById("kickwatch-data").textContent], { type: "application/json" });
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: "kickwatch-report.json" });
    link.click();
    URL.revokeObjectURL(link.href);
  });

  const textOf = (table) => [...table.rows].map((row) => [...row.cells].map((cell) => cell.textContent).join("\t")).join("\n");
  const copyOld = (text) => { // where the clipboard is not open to a file
    const area = Object.assign(document.createElement("textarea"), { value: text });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  };
  for (const button of document.querySelectorAll("button.copy")) {
    button.addEventListener("click", async () => {
      const table = button.parentElement.nextElementSibling.querySelector("table");
      try { await navigator.clipboard.writeText(textOf(table)); } catch { copyOld(textOf(table)); button.focus(); }
      announce("The table was copied.");
    });
  }

  const colour = (name) => `var(--${name})`;
  const font = 'system-ui, "DejaVu Sans", sans-serif';
  const config = (width) => ({
    background: null, font, aria: false,
    view: { stroke: null },
    text: { font },
    axis: {
      labelColor: colour("soft"), titleColor: colour("soft"), gridColor: colour("grid"), domainColor: colour("muted"),
      tickColor: colour("muted"), labelFont: font, titleFont: font, titleFontWeight: 500, labelFontSize: 12, titleFontSize: 12,
    },
    legend: {
      labelColor: colour("text"), titleColor: colour("soft"), labelFont: font, titleFont: font, orient: "top", symbolType: "square", symbolStrokeWidth: 0, symbolOpacity: 1,
      labelFontSize: 12, columns: width < 600 ? 2 : 4, titleFontWeight: 500, labelLimit: 260, symbolLimit: 30,
      gradientLength: Math.min(200, width / 2),
    },
  });
  const draw = async () => {
    let drawn = 0;
    for (const [name, spec] of Object.entries(read("kickwatch-plots"))) {
      const place = document.getElementById(`plot-${name}`);
      try {
        await window.vegaEmbed(place, spec, { actions: false, renderer: "svg", mode: "vega-lite", config: config(place.clientWidth) });
        drawn += 1;
      } catch (error) {
        place.textContent = "This plot could not be drawn; its table has the figures.";
        console.error(name, error);
      }
    }
    root.dataset.drawn = String(drawn);
  };
  draw();
})();
