// A worker: keeps all outlines of a map, however many, so that the page is never busy with them.

const SHOWN = 2000; // outlines that the page draws: the largest
const POINTS = 400000; // of all that are drawn
let features = [];
let boxes = new Float64Array(0); // west, south, east, north of each

self.onmessage = async ({ data: { id, file, centre, at, reach } }) => {
  self.postMessage({ id, answer: file ? await read(file, centre) : find(at, reach) });
};

const rings = ({ type, coordinates }) => (type === "Polygon" ? coordinates : coordinates.flat());

// Takes in a GeoJSON file; longitudes become those near `centre`.
async function read(file, centre) {
  ({ features } = JSON.parse(await file.text()));
  features.sort((one, other) => other.properties.area_km2 - one.properties.area_km2);
  boxes = new Float64Array(features.length * 4);
  let points = 0;
  let shown = 0;
  features.forEach(({ geometry }, index) => {
    const box = [Infinity, Infinity, -Infinity, -Infinity];
    for (const ring of rings(geometry)) {
      const shift = 360 * Math.round((centre - ring[0][0]) / 360);
      for (const point of ring) {
        point[0] += shift;
        box[0] = Math.min(box[0], point[0]);
        box[1] = Math.min(box[1], point[1]);
        box[2] = Math.max(box[2], point[0]);
        box[3] = Math.max(box[3], point[1]);
      }
      points += ring.length;
    }
    boxes.set(box, index * 4);
    if (index === 0 || (index < SHOWN && points < POINTS)) shown = index + 1;
  });
  return { shown: features.slice(0, shown) };
}

// The area at a place, or the nearest that has a corner within `reach` degrees of it.
function find([lon, lat], [reachLon, reachLat]) {
  let nearest = null;
  let least = 1;
  for (let index = 0; index < features.length; index += 1) {
    const [west, south, east, north] = boxes.subarray(index * 4, index * 4 + 4);
    if (lon < west - reachLon || lon > east + reachLon) continue;
    if (lat < south - reachLat || lat > north + reachLat) continue;
    const outline = rings(features[index].geometry);
    if (isInside(outline, lon, lat)) return features[index];
    for (const [x, y] of outline.flat()) {
      const far = Math.max(Math.abs(x - lon) / reachLon, Math.abs(y - lat) / reachLat);
      if (far < least) [nearest, least] = [features[index], far];
    }
  }
  return nearest;
}

function isInside(outline, lon, lat) {
  let inside = false;
  for (const ring of outline) {
    for (let index = 1; index < ring.length; index += 1) {
      const [[x1, y1], [x2, y2]] = [ring[index - 1], ring[index]];
      if (y1 > lat !== y2 > lat && lon < ((x2 - x1) * (lat - y1)) / (y2 - y1) + x1) inside = !inside;
    }
  }
  return inside;
}
