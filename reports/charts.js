"use strict";
// Curves and points of a study, drawn by Plotly from the numbers beside them.

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
// Plotly takes tags in a text for markup; names are text.
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const number = (x) => (Math.abs(x) >= 1000 ? Math.round(x).toLocaleString("en") : String(Number(x.toPrecision(4))));
const DASHES = ["solid", "dash", "dot", "dashdot"];
const SIGNS = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star"];

function wrapped(text, width = 46) {
  const lines = [""];
  for (const word of text.split(" ")) {
    if (lines.at(-1).length + word.length > width) lines.push("");
    lines[lines.length - 1] += (lines.at(-1) ? " " : "") + word;
  }
  return lines.map(plain).join("<br>");
}

function look(index) {
  return { colour: colour(`--s${index % 8}`), dash: DASHES[Math.floor(index / 8) % 4], sign: SIGNS[index % 7] };
}

// What an arm's curves are: themselves, or less those of the baseline in the same block.
function curvesOf(measure, arm, baseline, less) {
  if (!less) return [arm.whole, arm.blocks];
  const theirs = new Map(measure.arms[baseline]?.blocks ?? []);
  const minus = (values, other) => values.slice(0, other.length).map((y, i) => (y === null || other[i] === null ? null : y - other[i]));
  const blocks = arm.blocks.filter(([block]) => theirs.has(block)).map(([block, values]) => [block, minus(values, theirs.get(block))]);
  return [arm.less, blocks];
}

// The upper or the lower end of each interval.
function ends(whole, sign) {
  return whole.mean.map((y, i) => y + sign * whole.half[i]);
}

function curveTraces(data, measure, { blocks: seeds, band, less }) {
  const traces = [];
  data.arms.forEach(([label, options], index) => {
    const arm = measure.arms[label];
    if (!arm || (less && label === data.baseline)) return;
    const { colour: ink, dash } = look(index);
    const [whole, blocks] = curvesOf(measure, arm, data.baseline, less);
    const name = less ? `${label} less ${data.baseline}` : label;
    const group = { legendgroup: String(index), name: plain(label) };
    const about = options ? `<br>${wrapped(options)}` : "";
    if (seeds) {
      for (const [block, values] of blocks) {
        traces.push({
          ...group, showlegend: false, mode: "lines", x: values.map((_, i) => i + 1), y: values, opacity: 0.45,
          line: { color: ink, width: 1, dash }, hoverinfo: "text",
          hovertext: values.map((y, i) => `${plain(name)}, block ${block}<br>epoch ${i + 1}: ${y === null ? "none" : number(y)}`),
        });
      }
    }
    const epochs = whole.mean.map((_, i) => i + 1);
    if (band && epochs.length && whole.half.every((x) => x !== null)) {
      traces.push({
        ...group, showlegend: false, mode: "lines", hoverinfo: "skip", x: [...epochs, ...epochs.slice().reverse()],
        y: [...ends(whole, 1), ...ends(whole, -1).reverse()], fill: "toself", fillcolor: `${ink}22`, line: { width: 0 },
      });
    }
    traces.push({
      ...group, mode: "lines+markers", x: epochs, y: whole.mean, line: { color: ink, width: 2.2, dash }, marker: { size: 4, color: ink },
      hoverinfo: "text",
      hovertext: whole.mean.map((y, i) => {
        const bounds = whole.half[i] === null ? "" : `<br>95 %: ${number(y - whole.half[i])} to ${number(y + whole.half[i])}`;
        return `<b>${plain(name)}</b>, epoch ${i + 1}: ${number(y)}${bounds}${about}`;
      }),
    });
  });
  return traces;
}

function pointTraces(data, cost, seeds) {
  const traces = [];
  data.arms.forEach(([label, options], index) => {
    const arm = data.points.arms[label];
    const at = arm && arm.at[cost];
    if (!at) return;
    const { colour: ink, sign } = look(index);
    const [x, low, high] = at;
    const [y, below, above] = arm.value;
    const group = { legendgroup: String(index), name: plain(label) };
    if (seeds) {
      traces.push({
        ...group, showlegend: false, mode: "markers", x: arm.blocks.map(() => x), y: arm.blocks.map(([, v]) => v),
        marker: { size: 4, color: ink, opacity: 0.6 }, hoverinfo: "text",
        hovertext: arm.blocks.map(([block, v]) => `${plain(label)}, block ${block}: ${v === null ? "none" : number(v)} %`),
      });
    }
    const bar = (top, value, bottom) => ({
      type: "data", symmetric: false, array: [top - value], arrayminus: [value - bottom], color: ink, thickness: 1.2, width: 3,
    });
    const known = below !== null && above !== null && arm.n >= 3; // of two it is 13 standard errors wide
    traces.push({
      ...group, mode: "markers", x: [x], y: [y], marker: { size: 11, color: ink, symbol: sign },
      ...(known ? { error_y: bar(above, y, below) } : {}), ...(low === undefined ? {} : { error_x: bar(high, x, low) }),
      hoverinfo: "text",
      hovertext: [
        `<b>${plain(label)}</b>: ${number(y)} %` + (known ? `<br>95 %: ${number(below)} to ${number(above)}` : "") +
          `<br>${plain(cost)}: ${number(x)}` + (low === undefined ? "" : ` (${number(low)} to ${number(high)})`) +
          `<br>${arm.n} block${arm.n === 1 ? "" : "s"}` + (options ? `<br>${wrapped(options)}` : ""),
      ],
    });
  });
  return traces;
}

// 1, 2 and 5 times a power of ten, named in full: Plotly would write 2 for 20 k.
function logTicks(low, high) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); 10 ** power <= 2 * high; power += 1) {
    for (const first of high > 100 * low ? [1] : [1, 2, 5]) ticks.push(first * 10 ** power);
  }
  const short = (x) => (x >= 1e6 ? `${x / 1e6} M` : x >= 1e3 ? `${x / 1e3} k` : String(Number(x.toPrecision(2))));
  return { tickvals: ticks, ticktext: ticks.map(short) };
}

function layout(xTitle, yTitle, { log = false, epochs = 0, zero = false }) {
  const axis = { gridcolor: colour("--rule"), linecolor: colour("--edge"), zeroline: false, automargin: true };
  return {
    xaxis: { ...axis, title: { text: plain(xTitle), standoff: 6 }, ...(log ? { type: "log", ...logTicks(...log) } : {}), ...(epochs && epochs <= 12 ? { dtick: 1 } : {}) },
    yaxis: { ...axis, title: { text: plain(yTitle) }, ...(zero ? { zeroline: true, zerolinecolor: colour("--edge") } : {}) },
    font: { color: colour("--ink"), family: "inherit", size: 12 },
    paper_bgcolor: "transparent", plot_bgcolor: "transparent", hovermode: "closest",
    hoverlabel: { bgcolor: colour("--paper"), bordercolor: colour("--edge"), font: { color: colour("--ink"), family: "inherit" }, align: "left" },
    legend: { orientation: "h", x: 0, y: -0.2, yanchor: "top" }, margin: { l: 50, r: 12, t: 30, b: 40 },
    modebar: { bgcolor: "transparent", color: colour("--soft"), activecolor: colour("--accent") },
  };
}

function drawChart(figure) {
  const data = JSON.parse(document.getElementById(figure.dataset.source).textContent);
  const choice = figure.querySelector("select").value;
  const ticked = (name) => figure.querySelector(`input[name=${name}]`).checked;
  const plot = figure.querySelector(".plot");
  const config = {
    displaylogo: false, responsive: true, displayModeBar: true,
    modeBarButtons: [["toImage"], ["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]], // nothing that leaves the page
    toImageButtonOptions: { filename: figure.dataset.source, scale: 2 },
  };
  if (figure.dataset.chart === "curves") {
    const measure = data.curves.find((curve) => curve.key === choice);
    const epochs = Math.max(...Object.values(measure.arms).flatMap((arm) => arm.blocks.map(([, values]) => values.length)));
    const shown = { blocks: ticked("blocks"), band: ticked("band"), less: ticked("less") };
    const title = shown.less ? `${measure.name} less ${data.baseline}${measure.units[1]}` : measure.name + measure.units[0];
    return Plotly.react(plot, curveTraces(data, measure, shown), layout("epoch", title, { epochs, zero: shown.less }), config);
  }
  const costs = Object.values(data.points.arms).flatMap((arm) => (arm.at[choice] ? [arm.at[choice][0]] : []));
  const ends = [Math.min(...costs), Math.max(...costs)];
  const log = ends[1] > 8 * ends[0] && ends;
  const title = log ? `${choice}, log scale` : choice;
  return Plotly.react(plot, pointTraces(data, choice, ticked("blocks")), layout(title, "test accuracy, %", { log }), config);
}
