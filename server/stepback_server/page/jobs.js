// Background searches and batches: their progress, their errors, and a way to cancel them.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { get, post, text } from "./api.js";
import { download } from "./share.js";

const POLL = 2000; // milliseconds
const PATHS = { batches: "/v1/batches", searches: "/v1/searches" };
const FIRST = { batches: [""], searches: [""] }; // of each page up to the one in sight: what comes before it
const OVER = new Set(["completed", "failed", "expired", "cancelled", "done"]);

/** The page of a list after an entry, or null. */
async function listed(path, after) {
  try {
    return await get(`${path}?limit=20${after && `&after=${encodeURIComponent(after)}`}`);
  } catch (error) {
    if (error.code === "unknown_id") throw error; // `after` was deleted meanwhile
    if ([404, 405, 501].includes(error.status)) return null; // this server has none
    throw error;
  }
}

function Batch({ batch, cancel, save }) {
  const { total = 0, completed = 0, failed = 0 } = batch.request_counts ?? {};
  return html`<tr>
    <th scope="row"><code>${batch.id}</code></th>
    <td>${batch.status}</td>
    <td><progress max=${Math.max(1, total)} value=${completed + failed}
      aria-label=${`Progress of ${batch.id}`} /> ${completed + failed} of ${total}</td>
    <td>${failed ? `${failed} failed` : ""}
      ${(batch.errors?.data ?? []).map((one) => html`<div class="error">${one.line ? `line ${one.line}: ` : ""}${one.message}</div>`)}</td>
    <td>${!OVER.has(batch.status) && batch.status !== "cancelling" &&
      html`<button type="button" onClick=${() => cancel(`/v1/batches/${batch.id}/cancel`)}
        aria-label=${`Cancel ${batch.id}`}>Cancel</button>`}
      ${[["Output", batch.output_file_id], ["Errors", batch.error_file_id]].map(([name, id]) => id &&
        html`<button type="button" onClick=${() => save(id)} aria-label=${`${name} of ${batch.id}`}>${name}</button> `)}</td>
  </tr>`;
}

function Progress({ search }) {
  const { progress, generated_tokens: ended } = search;
  const tokens = ended || (progress?.generated_tokens ?? 0);
  if (!progress) return tokens ? html`${tokens} tokens` : null;
  const most = search.request?.budget?.tokens;
  const seconds = progress.seconds_searching.toFixed(1);
  return html`${most && html`<progress max=${most} value=${tokens} aria-label=${`Progress of ${search.id}`} /> `}
    ${tokens} tokens${most && ` of ${most}`}, ${progress.branches} branches, ${seconds} s`;
}

function Search({ search, cancel, open }) {
  return html`<tr>
    <th scope="row"><code>${search.id}</code></th>
    <td>${search.status}</td>
    <td><${Progress} search=${search} /></td>
    <td>${search.error?.message ?? ""}</td>
    <td>${OVER.has(search.status)
      ? search.status !== "cancelled" && html`<button type="button" onClick=${() => open(search.id)}
          aria-label=${`Show ${search.id}`}>Show</button>`
      : html`<button type="button" onClick=${() => open(search.id)} aria-label=${`Watch ${search.id}`}>Watch</button>
          <button type="button" onClick=${() => cancel(`/v1/searches/${search.id}/cancel`)}
          aria-label=${`Cancel ${search.id}`}>Cancel</button>`}</td>
  </tr>`;
}

function Table({ caption, heads, children }) {
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${caption}><table class="list"><caption>${caption}</caption>
    <thead><tr>${heads.map((head) => html`<th scope="col">${head}</th>`)}</tr></thead>
    <tbody>${children}</tbody></table></div>`;
}

/** Buttons to the pages of a list, where it has more than one. */
function Pages({ of, number, page, turn }) {
  if (number === 1 && !page.has_more) return null;
  return html`<nav class="pages" aria-label=${`Pages of ${of}`}>
    <button type="button" disabled=${number === 1} onClick=${() => turn(-1)}>Newer</button>
    <span role="status">page ${number}</span>
    <button type="button" disabled=${!page.has_more} onClick=${() => turn(1)}>Older</button>
  </nav>`;
}

export function Jobs({ open }) {
  const [state, setState] = useState({ batches: { data: [] }, searches: { data: [] } });
  const [error, setError] = useState(null);
  const [refusal, setRefusal] = useState(null); // apart: the next look does not take it back
  const places = useRef(FIRST); // no state: each look reads where it is now
  const look = async () => {
    const at = places.current;
    try {
      const batches = await listed(PATHS.batches, at.batches.at(-1));
      const searches = await listed(PATHS.searches, at.searches.at(-1));
      if (at !== places.current) return; // turned meanwhile
      setState({ batches, searches });
      setError(null);
    } catch (failure) {
      if (failure.code === "unknown_id") places.current = FIRST; // what stood before the page is deleted
      setError(failure.message);
    }
  };
  useEffect(() => {
    look();
    const timer = setInterval(look, POLL);
    return () => clearInterval(timer);
  }, []);
  const act = async (work) => {
    try {
      setRefusal(null);
      await work();
      await look();
    } catch (failure) {
      setRefusal(failure.message);
    }
  };
  const turn = (list, way) => {
    const trail = places.current[list];
    const next = way > 0 ? [...trail, state[list].last_id] : trail.slice(0, -1);
    places.current = { ...places.current, [list]: next };
    look();
  };
  const pages = (list, of) => html`<${Pages} of=${of} number=${places.current[list].length} page=${state[list]}
    turn=${(way) => turn(list, way)} />`;
  const cancel = (path) => act(() => post(path));
  // Not a link: the key is sent in a header.
  const save = (id) =>
    act(async () => download(`${id}.jsonl`, await text(`/v1/files/${id}/content`), "application/jsonl"));
  const show = (id) => act(() => open(id));
  const upload = (event) => {
    const [file] = event.target.files;
    const endpoint = event.target.form.endpoint.value;
    event.target.value = "";
    if (!file) return;
    act(async () => {
      const form = new FormData();
      form.append("purpose", "batch");
      form.append("file", file, file.name);
      const { id } = await post("/v1/files", form);
      await post("/v1/batches", { input_file_id: id, endpoint, completion_window: "24h" });
    });
  };
  if (state.batches === null && state.searches === null)
    return html`<p>This server keeps no jobs.</p>`;
  return html`<section aria-label="Jobs">
    ${[error, refusal].map((each) => each && html`<p class="error" role="alert">${each}</p>`)}
    ${state.batches && html`
      <form class="upload" onSubmit=${(event) => event.preventDefault()}>
        <label>New batch: a JSONL file for
          <select name="endpoint">${["/solve", "/v1/chat/completions", "/v1/completions"].map((one) => html`<option value=${one}>${one}</option>`)}</select>
        </label>
        <input type="file" accept=".jsonl,.json" aria-label="File of the batch" onChange=${upload} />
      </form>
      <${Table} caption="Batches" heads=${["Batch", "Status", "Progress", "Errors", "Action"]}>
        ${state.batches.data.map((batch) => html`<${Batch} key=${batch.id} batch=${batch} cancel=${cancel} save=${save} />`)}
      <//>${pages("batches", "batches")}`}
    ${state.searches && html`
      <${Table} caption="Background searches" heads=${["Search", "Status", "Progress", "Error", "Action"]}>
        ${state.searches.data.map((search) => html`<${Search} key=${search.id} search=${search} cancel=${cancel} open=${show} />`)}
      <//>${pages("searches", "background searches")}`}
  </section>`;
}
