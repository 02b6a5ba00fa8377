"use strict";
// Tables that sort and filter, figures to take away, charts when they come into sight.

document.documentElement.classList.add("js");

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const body = head.closest("table").tBodies[0];
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => row.cells[head.cellIndex].dataset.value ?? row.cells[head.cellIndex].textContent.trim();
    const byNumber = !head.classList.contains("text");
    const rows = [...body.rows];
    rows.sort((one, other) => {
      const [a, b] = [key(one), key(other)];
      if (a === "" || b === "") return (a === "") - (b === ""); // what has no value is last either way
      return (up ? 1 : -1) * (byNumber ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true }));
    });
    body.append(...rows);
  });
}

for (const input of document.querySelectorAll(".filter input")) {
  input.addEventListener("input", () => {
    const rows = [...document.getElementById(input.dataset.table).tBodies[0].rows];
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
    input.parentElement.nextElementSibling.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
  });
}

// A page that lies alone still gives its drawings away, in their colours on white.
function drawing(link) {
  const copy = link.closest("figure").querySelector(".wide svg").cloneNode(true);
  const [, , width, height] = copy.getAttribute("viewBox").split(" ").map(Number);
  copy.setAttribute("width", `${width}pt`);
  copy.setAttribute("height", `${height}pt`);
  const letters = document.createElementNS("http://www.w3.org/2000/svg", "defs");
  const uses = (element) => [...element.querySelectorAll("use")].map((use) => use.getAttribute("href").slice(1));
  const used = new Set(uses(copy)); // a set grows while it is walked: words, then their letters
  for (const id of used) {
    const part = document.querySelector(`#shared [id="${id}"]`);
    if (!part) continue;
    letters.append(part.cloneNode(true));
    uses(part).forEach((letter) => used.add(letter));
  }
  copy.prepend(document.querySelector("#shared style").cloneNode(true), letters);
  const colours = JSON.parse(document.getElementById("light-colours").textContent);
  const text = new XMLSerializer().serializeToString(copy)
    .replace(/var\((--[a-z0-9]+)\)/g, (_, name) => colours[name])
    .replace(/ href="#/g, ' xlink:href="#'); // older programs know no other
  return { blob: new Blob([text], { type: "image/svg+xml" }), width, height };
}

function give(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

for (const link of document.querySelectorAll("a[data-drawing]")) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    const { blob, width, height } = drawing(link);
    if (link.dataset.drawing === "svg") return give(blob, link.download);
    const image = new Image();
    image.onload = () => {
      const canvas = Object.assign(document.createElement("canvas"), { width: 3 * width, height: 3 * height });
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((png) => give(png, link.download));
    };
    image.src = URL.createObjectURL(blob);
  });
}

const charts = [...document.querySelectorAll("figure[data-chart]")];
const drawn = new Set();
const sight = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting && !drawn.has(target)) {
      drawn.add(target);
      drawChart(target);
    }
  }
}, { rootMargin: "300px" });
for (const figure of charts) {
  sight.observe(figure);
  figure.addEventListener("change", () => drawChart(figure));
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach(drawChart));

// A link to a claim opens it.
function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const details = target && target.closest("details");
  if (details) details.open = true;
}
addEventListener("hashchange", openTarget);
openTarget();
