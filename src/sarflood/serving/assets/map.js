// Draws: the world without any tile, the pictures of an answer, outlines, and where one is.

const L = window.L;
const ROUND = [30, 20, 10, 5, 2, 1];
const STEPS = [...ROUND, ...[1, 2, 3].flatMap((digits) => [5, 2, 1].map((n) => n / 10 ** digits))];
const LINE_APART = 100; // pixels between two lines of the grid, at least
const COARSE = 9; // the land's outline is too coarse beyond this zoom
const COLOURS = { outline: "#0b3d91", chosen: "#ffb000" };

export function createMap(element, onClick) {
  const map = L.map(element, {
    attributionControl: false,
    center: [12, 60],
    zoom: 2,
    minZoom: 1,
    maxZoom: 19,
    zoomSnap: 0.25,
    zoomDelta: 0.5,
    wheelPxPerZoomLevel: 90,
    renderer: L.canvas(),
  });
  for (const [name, order] of [["land", 150], ["radar", 210], ["flood", 220], ["grid", 230]]) {
    map.createPane(name).style.zIndex = order;
  }
  map.getPane("grid").style.pointerEvents = "none";
  L.control.attribution({ prefix: "Leaflet" }).addAttribution("land: Natural Earth").addTo(map);
  L.control.scale({ imperial: false, maxWidth: 140 }).addTo(map);
  addPlace(map);
  addGrid(map);
  const world = addWorld(map);
  const answer = L.layerGroup().addTo(map);
  const chosen = L.layerGroup().addTo(map);
  let outlines = null;
  let pictures = {};

  map.on("click", ({ latlng }) => {
    const corner = map.containerPointToLatLng(map.latLngToContainerPoint(latlng).add([7, -7]));
    onClick([latlng.lng, latlng.lat], [corner.lng - latlng.lng, corner.lat - latlng.lat]);
  });
  map.on("zoomend", () => sharpen(map, pictures));

  return {
    // Shows two pictures at west, south, east, north.
    show(urls, [west, south, east, north]) {
      this.clear();
      const bounds = L.latLngBounds([south, west], [north, east]);
      for (const [pane, url] of Object.entries(urls)) {
        pictures[pane] = L.imageOverlay(url, bounds, { pane, alt: `${pane} picture` });
        pictures[pane].on("load", () => sharpen(map, pictures)).addTo(answer);
      }
      const inset = map.getSize().x > 700 ? 180 : 24; // beside the small world
      map.fitBounds(bounds, {
        paddingTopLeft: [56, 36], paddingBottomRight: [inset, 36], animate: false,
      });
      world.mark(bounds.getCenter());
    },
    outline(features, opacity) {
      const style = { color: COLOURS.outline, weight: 1, fill: false, opacity };
      outlines = L.geoJSON(features, { style, interactive: false }).addTo(answer);
    },
    choose(feature, place, content) {
      map.closePopup(); // which clears `chosen`
      const style = { color: COLOURS.chosen, weight: 3, fillOpacity: 0.15 };
      L.geoJSON(feature, { style, interactive: false }).addTo(chosen);
      const popup = L.popup({ content }).setLatLng([place[1], place[0]]).openOn(map);
      popup.on("remove", () => chosen.clearLayers());
    },
    unchoose: () => map.closePopup(),
    zoomTo(feature) {
      const around = map.getSize().x / 12;
      map.fitBounds(L.geoJSON(feature).getBounds(), {
        maxZoom: 16, padding: [around, around], animate: false,
      });
    },
    opacity(pane, value) {
      pictures[pane]?.setOpacity(value);
      if (pane === "flood") outlines?.setStyle({ opacity: value });
    },
    clear() {
      map.closePopup();
      answer.clearLayers();
      outlines = null;
      pictures = {};
      world.mark(null);
    },
  };
}

// Pixels that are shown larger than they are stay pixels; smaller ones are averaged.
function sharpen(map, pictures) {
  for (const picture of Object.values(pictures)) {
    const image = picture.getElement();
    const bounds = picture.getBounds();
    const width = map.project(bounds.getNorthEast()).x - map.project(bounds.getSouthWest()).x;
    image?.classList.toggle("pixels", width > image.naturalWidth * 1.5);
  }
}

// Land far out on the map, and a small world with a mark in a corner closer up.
function addWorld(map) {
  const colour = (name) => getComputedStyle(document.body).getPropertyValue(name).trim();
  const style = () => ({
    color: colour("--coast"), fillColor: colour("--land"), fillOpacity: 1, weight: 0.7,
  });
  const layer = (land, options) => {
    const copies = [-360, 0, 360].map((shift) =>
      L.geoJSON(land, {
        ...options, style, interactive: false, coordsToLatLng: ([lon, lat]) => [lat, lon + shift],
      }));
    return L.layerGroup(copies);
  };
  const corner = L.DomUtil.create("div", "inset");
  const control = L.control({ position: "bottomright" });
  control.onAdd = () => corner;
  control.addTo(map);
  const inset = L.map(corner, {
    attributionControl: false, zoomControl: false, dragging: false, scrollWheelZoom: false,
    doubleClickZoom: false, boxZoom: false, keyboard: false, touchZoom: false, tap: false,
    zoomSnap: 0.1, minZoom: 0, center: [0, 0], zoom: 1,
  });
  corner.removeAttribute("tabindex");
  corner.setAttribute("aria-hidden", "true");
  let dot = null;

  fetch("page/land.json").then((answer) => answer.json()).then((land) => {
    const far = layer(land, { pane: "land", renderer: L.canvas({ pane: "land", padding: 0.5 }) });
    const near = layer(land, { renderer: L.canvas() }).addTo(inset);
    const follow = () => {
      const close = map.getZoom() > COARSE;
      map.getContainer().classList.toggle("close", close);
      if (close) far.remove();
      else far.addTo(map);
    };
    map.on("zoomend", follow);
    follow();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      for (const group of [far, near]) group.eachLayer((copy) => copy.setStyle(style()));
    });
  });
  return {
    mark(place) {
      dot?.remove();
      corner.classList.toggle("shown", place !== null);
      if (place === null) return;
      inset.invalidateSize({ animate: false });
      inset.setView([place.lat * 0.8, place.lng], 2, { animate: false });
      const look = { radius: 5, color: "#fff", weight: 2, fillColor: "#e5484d", fillOpacity: 1 };
      dot = L.circleMarker(place, { ...look, renderer: L.svg(), interactive: false }).addTo(inset);
    },
  };
}

// Lines of longitude and latitude at round numbers, with these at the edges.
function addGrid(map) {
  const lines = L.layerGroup().addTo(map);
  const renderer = L.svg({ pane: "grid", padding: 0.2 });
  const label = (at, text, kind) =>
    L.marker(at, {
      icon: L.divIcon({ className: `degrees ${kind}`, html: `<span>${text}</span>`, iconSize: null }),
      interactive: false, keyboard: false, pane: "grid",
    }).addTo(lines);
  const line = (ends) =>
    L.polyline(ends, { className: "graticule", renderer, weight: 1, interactive: false }).addTo(lines);
  const draw = () => {
    lines.clearLayers();
    const view = map.getBounds();
    const [west, east] = [view.getWest(), view.getEast()];
    const [south, north] = [Math.max(view.getSouth(), -85), Math.min(view.getNorth(), 85)];
    const pixels = map.getSize().x / (east - west);
    const step = STEPS.findLast((size) => size * pixels >= LINE_APART) ?? STEPS[0];
    const digits = Math.max(0, -Math.floor(Math.log10(step)));
    const screen = map.getSize();
    for (let n = Math.ceil(west / step); n * step <= east; n += 1) {
      line([[south, n * step], [north, n * step]]);
      const { x } = map.latLngToContainerPoint([0, n * step]);
      if (x < 80 || x > screen.x - 100) continue; // where the buttons and other labels are
      label([view.getNorth(), n * step], degrees(n * step, digits, "E", "W"), "top");
    }
    for (let n = Math.ceil(south / step); n * step <= north; n += 1) {
      line([[n * step, west], [n * step, east]]);
      const { y } = map.latLngToContainerPoint([n * step, 0]);
      if (y > 12 && y < screen.y - 30) label([n * step, east], degrees(n * step, digits, "N", "S"), "right");
    }
  };
  map.on("moveend resize", draw);
  draw();
}

export function degrees(value, digits, plus, minus) {
  const turned = plus === "E" ? ((((value + 180) % 360) + 360) % 360) - 180 : value;
  const size = Math.abs(turned).toFixed(digits);
  const sign = Number(size) % 180 === 0 ? "" : ` ${turned < 0 ? minus : plus}`;
  return `${size}°${sign}`;
}

// Where the pointer is.
function addPlace(map) {
  const element = L.DomUtil.create("div", "place");
  const control = L.control({ position: "bottomleft" });
  control.onAdd = () => element;
  control.addTo(map);
  map.on("mousemove", ({ latlng: { lat, lng } }) => {
    element.textContent = `${degrees(lat, 5, "N", "S")}, ${degrees(lng, 5, "E", "W")}`;
  });
  map.on("mouseout", () => element.replaceChildren());
}
