// What the page can do beyond being read: without this script every figure is still there.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const details = JSON.parse(document.getElementById("details").textContent);
const haveMaps = Object.values(details).some((detail) => detail.maps);

/** Make an element with properties and children; text is never markup. */
function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

/** A button between light and dark; the choice is kept where the browser allows it. */
function addThemeSwitch() {
  const root = document.documentElement;
  const button = make("button", { type: "button", id: "theme" });
  const isDark = () =>
    root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const name = () => (button.textContent = isDark() ? "Light" : "Dark");
  try {
    const kept = localStorage.getItem("finetune-theme");
    if (kept === "light" || kept === "dark") root.dataset.theme = kept;
  } catch { /* a file may have no storage */ }
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("finetune-theme", root.dataset.theme); } catch { /* as above */ }
    name();
  });
  name();
  document.getElementById("controls").append(button);
}

/** Let a heading sort its table; what is undefined stays at the end. */
function makeSortable(table) {
  for (const heading of table.querySelectorAll("th[data-sort]")) {
    const button = make("button", { type: "button" }, heading.textContent);
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      const isText = heading.dataset.sort === "text";
      const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of table.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const value = (row) => {
        const cell = row.cells[heading.cellIndex];
        if (isText) return cell.textContent;
        return cell.dataset.value === "" ? null : Number(cell.dataset.value);
      };
      const compare = (one, other) => {
        const [a, b] = [value(one), value(other)];
        if (a === null || b === null) return (a === null) - (b === null);
        return sign * (isText ? a.localeCompare(b) : a - b);
      };
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort(compare));
    });
  }
}

/** Tell who cannot see it that the photos of a cell have appeared. */
function followTarget() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target && target.classList.contains("cell")) target.focus();
}

/** Make an element of a picture. */
function draw(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** Whether the network saw a part of a photo only. */
function isPart({ box: [x, y, width, height], ...detail }) {
  return x > 0.5 || y > 0.5 || x + width < detail.width - 0.5 || y + height < detail.height - 0.5;
}

/** Say in words what a map shows, for who does not see it and for who does. */
function mapWords(detail, [name, , strongest]) {
  const words = strongest
    ? `Coloured: what speaks for ${name}, the lighter the more; strongest ${strongest} of the photo.`
    : `Nothing in this photo speaks for ${name} more than for other classes.`;
  return words + (isPart(detail) ? " The model saw what is in the frame." : "");
}

/** The picture of a photo, large, with a map over it where one is chosen; or why there is none. */
function picture(key, detail, map) {
  if (detail.reason) return make("p", { className: "absent" }, "no picture: " + detail.reason);
  const words = `${detail.label}: ${detail.name}` + (map ? `. ${mapWords(detail, map)}` : "");
  const svg = draw("svg", {
    class: "picture", viewBox: `0 0 ${detail.width} ${detail.height}`, role: "img", "aria-label": words,
  }, draw("use", { href: "#" + key }));
  if (map) {
    const [x, y, width, height] = detail.box;
    const place = { x, y, width, height };
    svg.append(draw("image", { ...place, href: map[1], preserveAspectRatio: "none", filter: "url(#heat)" }));
    if (isPart(detail)) svg.append(draw("rect", { ...place, class: "seen" }));
  }
  return svg;
}

/** A button that is known by its key when the viewer is drawn anew. */
function action(text, key, act) {
  const button = make("button", { type: "button" }, text);
  button.dataset.key = key;
  button.addEventListener("click", act);
  return button;
}

/** Buttons that lay a map over the photo, or take it away; what is said of it stands below. */
function mapChoice(detail, chosen, choose) {
  if (!detail.maps) return haveMaps ? [make("p", { id: "said" }, "Maps are made of the photos to look at only.")] : [];
  const buttons = detail.maps.map(([name], index) => {
    const button = action(`What speaks for ${name}`, `map ${index}`, () => choose(index === chosen ? null : index));
    button.setAttribute("aria-pressed", String(index === chosen));
    if (index === chosen) button.setAttribute("aria-describedby", "said");
    return button;
  });
  const group = make("div", { className: "choice" }, ...buttons);
  group.setAttribute("role", "group");
  group.setAttribute("aria-label", "Where the model looked");
  const map = detail.maps[chosen];
  return map ? [group, make("p", { id: "said" }, mapWords(detail, map))] : [group];
}

/** The likeliest classes of a photo as a table, its own among them. */
function likeliest(detail) {
  const rows = detail.likeliest.map(([name, , text]) => [name, text]);
  if (!rows.some(([name]) => name === detail.label)) rows.push([detail.label, detail.own]);
  const body = rows.map(([name, text]) => {
    const row = make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, text));
    if (name === detail.label) row.className = "labelled";
    return row;
  });
  const head = make("tr", {}, make("th", { scope: "col" }, "class"), make("th", { scope: "col" }, "probability"));
  return make("table", {},
    make("caption", {}, `What the model says; labelled ${detail.label}`),
    make("thead", {}, head), make("tbody", {}, ...body));
}

/** A photo opens in a dialog, from which the others of its list are a step away. */
function addViewer() {
  const viewer = document.getElementById("viewer");
  let list = [];
  let place = 0;
  let chosen = null; // which map lies over the photo: 0 of the predicted class, 1 of the other
  const step = (by) => { place = (place + by + list.length) % list.length; show(); };
  const choose = (index) => { chosen = index; show(); };
  const show = () => {
    const detail = details[list[place]];
    const right = detail.label === detail.predicted;
    const title = right ? `${detail.label}, right` : `${detail.label} taken for ${detail.predicted}`;
    const focused = document.activeElement.dataset.key;
    viewer.replaceChildren(
      make("h2", {}, title),
      picture(list[place], detail, detail.maps && detail.maps[chosen]),
      ...mapChoice(detail, chosen, choose),
      likeliest(detail),
      make("p", { className: "files" }, `${detail.name} (${place + 1} of ${list.length})`),
      make("div", { className: "buttons" },
        action("Previous", "previous", () => step(-1)), action("Next", "next", () => step(1)),
        action("Close", "close", () => viewer.close())));
    const again = focused && viewer.querySelector(`[data-key="${focused}"]`);
    if (again) again.focus();
  };
  for (const card of document.querySelectorAll("[data-shot]")) {
    const detail = details[card.dataset.shot];
    const open = make("button", { type: "button", className: "open" });
    open.setAttribute("aria-label", `Open ${detail.name}`);
    open.addEventListener("click", () => {
      const cards = [...card.parentElement.querySelectorAll("[data-shot]")];
      list = cards.map((one) => one.dataset.shot);
      place = cards.indexOf(card);
      show();
      viewer.showModal();
    });
    card.append(open);
  }
  viewer.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
}

addThemeSwitch();
document.querySelectorAll(".sortable").forEach(makeSortable);
addViewer();
addEventListener("hashchange", followTarget);
addEventListener("beforeprint", () => {
  for (const hidden of document.querySelectorAll("details")) hidden.open = true;
});
