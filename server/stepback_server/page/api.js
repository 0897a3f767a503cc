// HTTP to the server that this page came from. The API key stays in memory: a reload forgets it.

let apiKey = "";

/** Tells `refused` where the server takes no request with the key in use, or none without a key. */
export const refusals = new EventTarget();

export function setKey(key) {
  apiKey = key.trim();
}

// The page lies in /ui/, so this holds behind a proxy that adds a prefix, too.
const url = (path) => new URL(`..${path}`, document.baseURI);

const headers = (more = {}) => (apiKey ? { Authorization: `Bearer ${apiKey}`, ...more } : more);

/** An answer that is an error: its message, code and status. */
export class ServerError extends Error {
  constructor(status, body) {
    super(body?.error?.message ?? body?.detail ?? `The server answered ${status}.`);
    this.status = status;
    this.code = body?.error?.code ?? null;
  }
}

/** The answer to a request, where that is a success. */
async function ask(path, options) {
  const sent = apiKey;
  const response = await fetch(url(path), options);
  if (response.ok) return response;
  // An answer to another key than the one in use says nothing of this one.
  if (response.status === 401 && sent === apiKey) refusals.dispatchEvent(new Event("refused"));
  let body = null;
  try {
    body = await response.json();
  } catch {
    // Not JSON: a proxy's page, say. The status has to do.
  }
  throw new ServerError(response.status, body);
}

export async function get(path, signal) {
  return (await ask(path, { headers: headers(), signal })).json();
}

export async function text(path) {
  return (await ask(path, { headers: headers() })).text();
}

export async function post(path, body, signal) {
  const options = { method: "POST", signal, headers: headers() };
  if (body instanceof FormData) options.body = body;
  else if (body !== undefined) {
    options.headers = headers({ "Content-Type": "application/json" });
    options.body = JSON.stringify(body);
  }
  return (await ask(path, options)).json();
}

/** The events of a streamed search, as parsed JSON. */
export async function* events(path, body, signal) {
  const options = { signal, headers: headers({ Accept: "text/event-stream" }) };
  if (body !== undefined) {
    options.method = "POST";
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const response = await ask(path, options);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part
        .split("\n")
        .filter((line) => line.startsWith("data:"))
        .map((line) => line.slice(5).trimStart());
      if (data.length) yield JSON.parse(data.join("\n"));
    }
  }
}
