// Asks the service. A token, where one is needed, stays in this tab's session alone.

const KEY = "sarflood-token";
const NO_ANSWER =
  "The service cannot be reached, or ended the connection; see whether it runs, and try again.";

// A sentence for the person in front of the page.
export class Refusal extends Error {
  constructor(sentence, status = 0) {
    super(sentence);
    this.needsToken = status === 401 || status === 403;
  }
}

export class Cancelled extends Error {}

// Takes a token from the address (`#token=…`) and removes it from there. Says whether there was one.
export function takeToken() {
  const [, given] = location.hash.match(/^#token=(.+)$/) ?? [];
  if (!given) return false;
  history.replaceState(null, "", location.pathname + location.search);
  keepToken(decoded(given));
  return true;
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a token with a bare %
  }
}

export function keepToken(token) {
  sessionStorage.setItem(KEY, token.trim());
}

export function hasToken() {
  return sessionStorage.getItem(KEY) !== null;
}

function headers(accept) {
  const token = sessionStorage.getItem(KEY);
  return { Accept: accept, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
}

async function ask(address, accept) {
  let answer;
  try {
    answer = await fetch(address, { headers: headers(accept), cache: "no-store" });
  } catch {
    throw new Refusal(NO_ANSWER);
  }
  if (!answer.ok) throw refusal(answer.status, await answer.text());
  return answer;
}

export const model = async () => (await ask("model", "application/json")).json();
export const card = async () => (await ask("model/card", "text/html")).text();

function refusal(status, text) {
  try {
    const { error } = JSON.parse(text);
    if (typeof error === "string") return new Refusal(error, status);
  } catch {
    // Not the service's own words: such as a proxy's page.
  }
  return new Refusal(`The service answered ${status}; its log says why.`, status);
}

// Sends files (`[["scene", File], …]`). `answer` becomes the form of all that came of the mapping;
// `onSent` and `onReceived` are told bytes and all bytes.
export function mapScene(files, { onSent, onReceived }) {
  const form = new FormData();
  for (const [field, file] of files) form.append(field, file);
  const request = new XMLHttpRequest(); // fetch does not say how much is sent
  const answer = new Promise((resolve, reject) => {
    request.upload.onprogress = ({ loaded, total }) => onSent(loaded, total);
    request.onprogress = ({ loaded, total }) => onReceived(loaded, total);
    request.onerror = () => reject(new Refusal(NO_ANSWER));
    request.onabort = () => reject(new Cancelled());
    request.onload = async () => {
      const { status, response } = request;
      if (status !== 200) return reject(refusal(status, await response.text()));
      const type = request.getResponseHeader("Content-Type");
      const parts = new Response(response, { headers: { "Content-Type": type } }).formData();
      parts.then(resolve, () => reject(new Refusal("The answer is damaged; try again.")));
    };
    request.open("POST", "predict");
    request.responseType = "blob";
    for (const [name, value] of Object.entries(headers("multipart/form-data"))) {
      request.setRequestHeader(name, value);
    }
    request.send(form);
  });
  return { answer, cancel: () => request.abort() };
}
