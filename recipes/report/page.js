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
    margin: { l: phone.matches ? 44 : 60, r: 12, t: several ? 34 : 12, b: 44 },
    showlegend: several,
    legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom" },
    dragmode: phone.matches ? false : "zoom",
  };
  const made = { ...base, ...figure.layout };
  for (const axis of ["xaxis", "yaxis"]) made[axis] = { automargin: true, ...made[axis] };
  for (const shape of made.shapes ?? []) shape.line = { ...shape.line, width: 2, color: themes[theme].layout.font.color };
  return made;
}

function draw(plot, theme) {
  const figure = figures[plot.dataset.figure];
  const config = { responsive: true, displaylogo: false, displayModeBar: phone.matches ? false : "hover" };
  return Plotly.react(plot, figure.data, layout(figure, theme), config);
}

async function drawAll() {
  for (const plot of plots) {
    await draw(plot, dark.matches ? "dark" : "light");
    await new Promise((resolve) => setTimeout(resolve));
  }
  document.documentElement.dataset.drawn = plots.length;
}

dark.addEventListener("change", drawAll);
window.addEventListener("beforeprint", () => plots.forEach((plot) => draw(plot, "light")));
window.addEventListener("afterprint", drawAll);
drawAll();
