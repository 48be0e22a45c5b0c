// What one sees and does: choose scenes, watch, look at the map, take it along.

import { createMap, degrees } from "./map.js";
import * as service from "./service.js";

const SPOKEN = { db: "in dB or linear power", uint8: "as 8-bit grey levels" };
const FILES = ["flood.tif", "probability.tif", "flood.geojson"];
const MB = 1e6;

const at = (id) => document.getElementById(id);
const chosen = { scene: [], pre: [] };
const map = createMap(at("map"), lookAt);
let facts = null; // what `/model` says
let running = null; // the request on its way
let areas = null; // the worker with all outlines of the shown map
let urls = []; // of what is shown and offered

function element(tag, text = "", attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

const say = (text) => { at("said").textContent = text; };
const percent = (share) => `${(share * 100).toFixed(share > 0 && share < 0.1 ? 2 : 1)} %`;
function megabytes(bytes) {
  if (bytes < 0.1 * MB) return `${Math.ceil(bytes / 1000)} kB`;
  return `${(bytes / MB).toFixed(bytes < 10 * MB ? 1 : 0)} MB`;
}

function km2(area) {
  if (area >= 100) return area.toLocaleString("en", { maximumFractionDigits: 0 });
  return area === 0 ? "0" : area.toLocaleString("en", { minimumSignificantDigits: 3, maximumSignificantDigits: 3 });
}

// The service and its model.

async function meet() {
  try {
    facts = await service.model();
  } catch (error) {
    return showFault(error);
  }
  at("token-form").hidden = true;
  at("scene-form").hidden = false;
  at("fault").hidden = true;
  at("version").textContent = [facts.version, facts.stage].filter(Boolean).join(" · ");
  at("version").hidden = false;
  at("version").title = "Show the model card";
  const { bands, units, label } = facts.model;
  const [now, before] = [false, true].map((pre) =>
    bands.filter((band) => band.endsWith("_pre") === pre).map((band) => band.toUpperCase()));
  document.querySelector('[data-slot="pre"]').hidden = before.length === 0;
  const both = `; from before the flood the same, or bands ${before.join(" and ")} in the scene itself`;
  at("takes").textContent = `${now.join(" and ")} ${SPOKEN[units]}${before.length > 0 ? both : ""}. ` +
    `At most ${megabytes(facts.serving.max_megabytes * MB)}.`;
  at("flood-label").textContent = label === "flood" ? "Flood" : "Water";
  showChosen();
}

async function showCard() {
  let text;
  try {
    text = await service.card();
  } catch (error) {
    return showFault(error);
  }
  // The service turned Markdown into this, with all markup in it as text; the page's policy runs
  // no script from it either.
  const parsed = new DOMParser().parseFromString(text, "text/html");
  for (const link of parsed.querySelectorAll("a")) {
    link.target = "_blank";
    link.rel = "noopener noreferrer";
  }
  for (const table of parsed.querySelectorAll("table")) {
    const frame = parsed.createElement("div");
    frame.className = "wide-table";
    frame.tabIndex = 0;
    table.replaceWith(frame);
    frame.append(table);
  }
  at("card").querySelector("article").replaceChildren(...parsed.body.childNodes);
  at("card").showModal();
}

// Files.

function choose(slot, files) {
  if (running || !facts || files.length === 0) return;
  chosen[slot] = [...files];
  showChosen();
}

function chooseByName(files) {
  const hasPre = !document.querySelector('[data-slot="pre"]').hidden;
  const isPre = ({ name }) => hasPre && /(^|[^a-z])(pre|before)([^a-z]|$)/i.test(name);
  choose("pre", files.filter(isPre));
  choose("scene", files.filter((file) => !isPre(file)));
}

function showChosen() {
  for (const slot of document.querySelectorAll(".slot")) {
    const text = slot.querySelector(".files");
    const files = chosen[slot.dataset.slot];
    text.textContent = files.length === 0
      ? text.dataset.empty
      : files.map(({ name, size }) => `${name} (${megabytes(size)})`).join(", ");
    slot.classList.toggle("filled", files.length > 0);
  }
  at("start").disabled = running !== null || chosen.scene.length === 0;
}

// A mapping.

// The fields of the form for the files of a date: all bands in one, or a file for each polarisation.
function fieldsOf(slot) {
  const files = chosen[slot];
  if (files.length < 2) return files.map((file) => [slot, file]);
  const fields = files.map((file) => {
    const [found] = file.name.toLowerCase().match(/(?<![a-z])(vv|vh)(?![a-z])/) ?? [];
    return [`${slot}_${found}`, file];
  });
  const names = fields.map(([name]) => name).sort().join();
  if (names === `${slot}_vh,${slot}_vv`) return fields;
  throw new service.Refusal(
    `${files.map(({ name }) => name).join(", ")}: choose one file, or two with VV and VH in their names.`,
  );
}

async function start() {
  clear();
  let files;
  try {
    files = [...fieldsOf("scene"), ...fieldsOf("pre")];
  } catch (error) {
    return showFault(error);
  }
  const size = files.reduce((sum, [, file]) => sum + file.size, 0);
  const limit = facts.serving.max_megabytes * MB;
  if (size > limit) {
    const sizes = `${(size / MB).toFixed(1)} MB are more than the ${limit / MB} MB that it takes`;
    return showFault(new service.Refusal(`The files: ${sizes}; cut the scene, or compress them.`));
  }
  const clock = progress();
  running = service.mapScene(files, { onSent: clock.sent, onReceived: clock.received });
  showChosen();
  try {
    await show(await running.answer, chosen.scene[0].name);
  } catch (error) {
    if (error instanceof service.Cancelled) say("Cancelled.");
    else showFault(error);
  } finally {
    clock.stop();
    running = null;
    showChosen();
  }
}

function progress() {
  const began = performance.now();
  let mapping = false;
  const tell = (text, share) => {
    at("stage").textContent = text;
    if (share === null) at("share").removeAttribute("value");
    else at("share").value = share;
  };
  const seconds = () => Math.round((performance.now() - began) / 1000);
  const timer = setInterval(() => mapping && tell(`Mapping … ${seconds()} s`, null), 500);
  at("work").hidden = false;
  tell("Sending …", 0);
  say("Sending the scene.");
  return {
    sent(bytes, all) {
      mapping = bytes === all;
      if (mapping) say("The scene is being mapped.");
      tell(mapping ? "Mapping …" : `Sending ${megabytes(bytes)} of ${megabytes(all)}`,
        mapping ? null : bytes / all);
    },
    received(bytes, all) {
      mapping = false;
      tell(`Receiving ${megabytes(bytes)}`, all > 0 ? bytes / all : null);
    },
    stop() {
      clearInterval(timer);
      at("work").hidden = true;
    },
  };
}

function showFault(error) {
  if (!(error instanceof service.Refusal)) console.error(error);
  at("fault-sentence").textContent = error instanceof service.Refusal
    ? error.message
    : `The page failed (${error.message}); load it anew.`;
  if (error.needsToken) {
    at("token-form").hidden = false;
    at("scene-form").hidden = true;
    at("fault").hidden = !service.hasToken(); // nothing is wrong before a token was tried
    at("token").focus();
  } else {
    at("fault").hidden = false;
    at("fault").scrollIntoView({ block: "nearest" });
  }
}

function clear() {
  map.clear();
  areas?.end();
  areas = null;
  urls.forEach((url) => URL.revokeObjectURL(url));
  urls = [];
  at("fault").hidden = true;
  at("result").hidden = true;
}

// A map.

function urlOf(file) {
  const url = URL.createObjectURL(file);
  urls.push(url);
  return url;
}

async function show(form, name) {
  const summary = JSON.parse(form.get("summary"));
  const { bounds } = JSON.parse(form.get("overlay"));
  map.show({ radar: urlOf(form.get("radar.png")), flood: urlOf(form.get("flood.png")) }, bounds);
  for (const pane of ["radar", "flood"]) fade(pane);
  showFigures(summary, bounds, name);
  if (summary.version !== facts.version) meet(); // another one serves by now
  at("downloads").replaceChildren(...FILES.filter((file) => form.has(file)).map((file) => {
    const [link, size] = [element("a", file), element("span", megabytes(form.get(file).size))];
    link.href = urlOf(form.get(file));
    link.download = `${name.replace(/\.[^.]*$/, "")}-${file}`;
    link.append(size);
    return link;
  }));
  at("result").hidden = false;
  await showAreas(form.get("flood.geojson"), summary, (bounds[0] + bounds[2]) / 2);
  at("headline").scrollIntoView({ block: "nearest" });
  say(`${at("area").textContent} ${at("area-of").textContent}`);
}

function showFigures(summary, [west, south, east, north], name) {
  const isFlood = summary.label === "flood";
  at("area").replaceChildren(element("data", `${km2(summary.flooded_km2)} km²`, {
    value: summary.flooded_km2,
  }));
  at("area-of").textContent = `${isFlood ? "flooded" : "of water"} in ${name}`;
  const middle = `${degrees((south + north) / 2, 2, "N", "S")}, ${degrees((west + east) / 2, 2, "E", "W")}`;
  const figures = {
    "of the pixels with data": percent(summary.flooded_share),
    areas: summary.polygons.toLocaleString("en"),
    "pixels with data": percent(summary.valid_share),
    "threshold of probability": summary.threshold.toFixed(3),
    "mean confidence": summary.confidence === null ? "unknown" : percent(summary.confidence),
    "outside the range of the training":
      summary.outside_training_range === null ? "unknown" : percent(summary.outside_training_range),
    "model version": summary.version,
    "mapped in": `${summary.seconds.all.toFixed(1)} s`,
    "middle of the scene": middle,
    [`pixels, ${summary.crs}`]: `${summary.width} × ${summary.height}`,
  };
  at("figures").replaceChildren(...Object.entries(figures).map(([term, value]) => {
    const pair = element("div");
    pair.append(element("dt", term), element("dd", value));
    return pair;
  }));
}

async function showAreas(file, summary, centre) {
  const body = at("largest").querySelector("tbody");
  body.replaceChildren();
  at("note").hidden = true;
  for (const part of ["largest", "largest-title"]) at(part).hidden = !file || summary.polygons === 0;
  if (!file) return note("Too many areas to outline: the GeoTIFFs hold them all.");
  areas = outlinesOf(file, centre);
  const { shown } = await areas.shown;
  map.outline(shown, at("flood").value / 100);
  if (shown.length < summary.polygons) {
    const count = shown.length.toLocaleString("en");
    note(`Only the ${count} largest areas are outlined; a click finds any.`);
  }
  shown.slice(0, 10).forEach((feature, index) => {
    const { area_km2, mean_probability } = feature.properties;
    const button = element("button", km2(area_km2), { type: "button" });
    button.setAttribute("aria-label", `Show area ${index + 1}, ${km2(area_km2)} km²`);
    const cells = [element("td", `${index + 1}`), element("td"), element("td", percent(mean_probability))];
    cells[1].append(button);
    const row = element("tr");
    row.append(...cells);
    row.addEventListener("click", () => {
      map.zoomTo(feature);
      tellOf(feature, within(feature));
    });
    body.append(row);
  });
}

function note(text) {
  at("note").textContent = text;
  at("note").hidden = false;
}

// Reads outlines in a worker, and asks it what is at a place.
function outlinesOf(file, centre) {
  const worker = new Worker("page/areas.js");
  const waiting = [];
  const ask = (question) => new Promise((resolve, reject) => {
    waiting[waiting.length] = { resolve, reject };
    worker.postMessage({ id: waiting.length - 1, ...question });
  });
  worker.onmessage = ({ data: { id, answer } }) => waiting[id].resolve(answer);
  worker.onerror = (event) => waiting.forEach(({ reject }) => reject(new Error(event.message)));
  return {
    shown: ask({ file, centre }),
    find: (place, reach) => ask({ at: place, reach }),
    end: () => worker.terminate(),
  };
}

async function lookAt(place, reach) {
  if (!areas) return;
  const feature = await areas.find(place, reach);
  if (feature) tellOf(feature, place);
  else map.unchoose();
}

function tellOf(feature, place) {
  const { area_km2, mean_probability } = feature.properties;
  const content = element("div", "", { class: "area" });
  const area = element("strong");
  area.append(element("data", `${km2(area_km2)} km²`, { value: area_km2 }));
  const likely = element("span");
  likely.append("mean probability ", element("data", percent(mean_probability), { value: mean_probability }));
  content.append(area, likely);
  map.choose(feature, place, content);
  say(`Area of ${km2(area_km2)} square kilometres, mean probability ${percent(mean_probability)}`);
}

// A place inside an area: the middle of its widest stretch at half its height.
function within({ geometry: { type, coordinates } }) {
  const [outline] = type === "Polygon" ? [coordinates] : coordinates;
  let [south, north] = [90, -90];
  for (const [, lat] of outline[0]) [south, north] = [Math.min(south, lat), Math.max(north, lat)];
  const lat = (south + north) / 2 + 1e-9; // beside the corners, which lie on round steps
  const crossings = outline.flatMap((ring) => ring.slice(1).flatMap(([x2, y2], index) => {
    const [x1, y1] = ring[index];
    return y1 > lat === y2 > lat ? [] : [((x2 - x1) * (lat - y1)) / (y2 - y1) + x1];
  })).sort((one, other) => one - other);
  let [start, width] = [crossings[0], 0];
  for (let index = 0; index + 1 < crossings.length; index += 2) {
    const stretch = crossings[index + 1] - crossings[index];
    if (stretch > width) [start, width] = [crossings[index], stretch];
  }
  return [start + width / 2, lat];
}

function fade(pane) {
  const { value } = at(pane);
  map.opacity(pane, value / 100);
  document.querySelector(`output[for="${pane}"]`).textContent = `${value} %`;
}

// What starts all this.

at("scene-form").addEventListener("submit", (event) => {
  event.preventDefault();
  start();
});
at("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  service.keepToken(at("token").value);
  at("token").value = "";
  meet();
});
at("cancel").addEventListener("click", () => running?.cancel());
at("version").addEventListener("click", showCard);
at("card-close").addEventListener("click", () => at("card").close());
at("card").addEventListener("click", ({ target }) => target === at("card") && at("card").close());
for (const pane of ["radar", "flood"]) at(pane).addEventListener("input", () => fade(pane));
for (const slot of document.querySelectorAll(".slot")) {
  const input = slot.querySelector("input");
  slot.querySelector(".choose").addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    choose(slot.dataset.slot, input.files);
    input.value = ""; // so that the same file can be chosen again
  });
}
addEventListener("dragover", (event) => {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  at("drop").hidden = facts === null || running !== null;
});
addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) at("drop").hidden = true;
});
addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").hidden = true;
  const slot = event.target.closest?.(".slot");
  const files = [...event.dataTransfer.files];
  if (slot) choose(slot.dataset.slot, files);
  else chooseByName(files);
});
addEventListener("hashchange", () => service.takeToken() && meet());

service.takeToken();
meet();
