"use strict";
// Draws each figure after the other, so that the page answers meanwhile; draws again for dark, light and paper.
const { figures, themes } = JSON.parse(document.getElementById("data").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const phone = window.matchMedia("(max-width: 30rem)");
const plots = [...document.querySelectorAll(".plot")];

function layout(figure, theme) {
  const several = figure.data.length > 1;
  const base = {
    template: themes[theme],
    margin: { l: phone.matches ? 44 : 60, r: 12, t: several ? 34 : 12, b: 24 },
    showlegend: several,
    legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom", traceorder: "normal" },
    font: { size: phone.matches ? 11 : 13 },
    dragmode: phone.matches ? false : "zoom",
  };
  const made = { ...base, ...figure.layout };
  for (const axis of ["xaxis", "yaxis"]) made[axis] = { automargin: true, ...made[axis] };
  for (const shape of made.shapes ?? []) shape.line = { ...shape.line, width: 2, color: themes[theme].layout.font.color };
  return made;
}

function draw(plot, theme, width) {
  const figure = figures[plot.dataset.figure];
  for (const trace of figure.data) {
    if (trace.meta?.color !== undefined) trace.marker = { ...trace.marker, color: themes[theme].layout.colorway[trace.meta.color] };
  }
  const config = { responsive: true, displaylogo: false, displayModeBar: false };
  // A new plot is whole at once, a changed one may still be moving when it is printed.
  return Plotly[width ? "newPlot" : "react"](plot, figure.data, { ...layout(figure, theme), width }, config);
}

async function drawAll() {
  for (const plot of plots) {
    await draw(plot, dark.matches ? "dark" : "light");
    await new Promise((resolve) => setTimeout(resolve));
  }
  document.documentElement.dataset.drawn = plots.length;
}

dark.addEventListener("change", drawAll);
// Paper is as wide as 690 pixels and never asks for a redraw, so the charts are drawn for it beforehand.
window.addEventListener("beforeprint", () => {
  for (const plot of plots) draw(plot, "light", plot.closest(".wide") ? 690 : 335);
});
window.addEventListener("afterprint", drawAll);
drawAll();
