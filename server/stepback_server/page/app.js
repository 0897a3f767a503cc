// The page: a form, one or two runs, jobs, and the server's metrics.

import { html, render, useEffect, useState } from "./vendor/htm-preact.js";
import { get, refusals, setKey } from "./api.js";
import { Form } from "./form.js";
import { Jobs } from "./jobs.js";
import { Metrics } from "./metrics.js";
import { Run } from "./run.js";
import { limitsOf, tasksOf } from "./schema.js";
import { download, fromLink, toLink } from "./share.js";
import { RunView } from "./views.js";

function Toolbar({ runs, show }) {
  const [said, say] = useState("");
  const finished = runs.filter((run) => run.result);
  const load = async (event) => {
    const [file] = event.target.files;
    event.target.value = "";
    if (!file) return;
    try {
      const data = JSON.parse(await file.text());
      const found = (Array.isArray(data) ? data : [data]).map((one) => (one.result ? one : { result: one }));
      if (!found.length) throw new Error("It is empty.");
      show(found.map(Run.of));
      say("");
    } catch {
      say("That file is no search: load what Save has written, or a result with its tree.");
    }
  };
  const copy = async () => {
    const link = await toLink(finished);
    history.replaceState(null, "", link);
    try {
      await navigator.clipboard.writeText(link);
      say("The link is copied; it holds the search itself.");
    } catch {
      say("The link is in the address bar; it holds the search itself.");
    }
  };
  return html`<div class="toolbar">
    <button type="button" disabled=${!finished.length} onClick=${() => download("search.json", JSON.stringify(finished))}>Save</button>
    <label class="button">Load<input type="file" accept=".json" onChange=${load} /></label>
    <button type="button" disabled=${!finished.length} onClick=${copy}>Link</button>
    <span role="status">${said}</span>
  </div>`;
}

function Key({ changed }) {
  return html`<form class="key" aria-label="Key" onSubmit=${(event) => {
    event.preventDefault();
    setKey(event.target.key.value);
    event.target.key.value = "";
    changed();
  }}>
    <label>API key <input name="key" type="password" autocomplete="off" /></label>
    <button>Use</button>
    <small>Kept in memory until the page is closed.</small>
  </form>`;
}

function Page() {
  const [server, setServer] = useState(null);
  const [error, setError] = useState(null);
  const [linkError, setLinkError] = useState(null); // apart: a server that answers mends no link
  const [key, setKeyState] = useState("none"); // none, asked, given
  const [runs, setRuns] = useState([]);
  const [tab, setTab] = useState("search");
  const [preset, setPreset] = useState(null); // the request that the form goes on with
  const [, again] = useState(0);

  const learn = async () => {
    try {
      const [openapi, models] = await Promise.all([get("/openapi.json"), get("/v1/models")]);
      const model = models.data[0];
      const scorers = model.scorers ?? [];
      const limits = limitsOf(openapi);
      const rules = limits.rules.filter((rule) => rule !== "score" || scorers.length);
      setServer({ tasks: tasksOf(openapi), model, limits: { ...limits, rules }, scorers });
      setError(null);
    } catch (failure) {
      setError(failure);
    }
  };
  const show = (next) => {
    setLinkError(null);
    setRuns((former) => {
      for (const run of former) run.stop();
      return next;
    });
  };
  const follow = async () => {
    try {
      const found = await fromLink(location.hash);
      if (!found) return;
      show(found.map(Run.of));
      setTab("search");
    } catch {
      setLinkError(new Error("The link is damaged: it holds no search."));
    }
  };
  useEffect(() => {
    const ask = () => setKeyState("asked");
    refusals.addEventListener("refused", ask);
    // Pasted into a tab that shows the page, a link loads nothing anew.
    addEventListener("hashchange", follow);
    learn();
    follow();
    return () => {
      refusals.removeEventListener("refused", ask);
      removeEventListener("hashchange", follow);
    };
  }, []);

  const start = (requests) => {
    const next = requests.map((request) => new Run(request, request.strategy.replaceAll("_", " ")));
    show(next);
    Promise.allSettled(next.map((run) => run.go())).then(() => again((n) => n + 1));
  };
  const goOn = (run, kept) => {
    // A request may leave the strategy to the server.
    const strategy = run.request.strategy ?? run.result?.strategy;
    const request = { ...run.request, strategy, steps: kept };
    setPreset(request);
    start([request]);
  };
  const open = async (id) => {
    const { result, request, error } = await get(`/v1/searches/${id}`);
    if (error) throw new Error(error.message);
    if (result?.tree) show([Run.of({ result, request })]);
    else {
      // Its events tell the tree that the request did not ask for, and what is still to come.
      const run = new Run(request, (request.strategy ?? "search").replaceAll("_", " "));
      show([run]);
      run.follow(id).then(() => again((n) => n + 1));
    }
    setTab("search");
  };
  const names = { search: "Search", jobs: "Jobs" };
  return html`
    <header class="top">
      <h1>Stepback</h1>
      <p>${server?.model?.id}</p>
      <nav aria-label="Pages">${Object.entries(names).map(([id, title]) =>
        html`<button type="button" aria-current=${tab === id ? "page" : null} onClick=${() => setTab(id)}>${title}</button>`)}
        ${key === "given" && html`<button type="button" onClick=${() => setKeyState("asked")}>Change key</button>`}
        <a href="../docs">API</a></nav>
      <${Metrics} />
    </header>
    <main>
      ${[error, linkError].map((each) => each && html`<p class="error" role="alert">${each.message}</p>`)}
      ${key === "asked" && html`<${Key} changed=${() => {
        setKeyState("given");
        learn();
      }} />`}
      ${server && tab === "jobs" && html`<${Jobs} open=${open} />`}
      <div class="searching" hidden=${tab !== "search"}>
        ${server && html`<${Form} tasks=${server.tasks} limits=${server.limits} scorers=${server.scorers} start=${start}
          preset=${preset} clear=${() => setPreset(null)} />`}
        <section class="runs" aria-label="Searches">
          <${Toolbar} runs=${runs} show=${show} />
          <div class=${`side-by-side of-${runs.length}`}>
            ${runs.map((run, i) => html`<${RunView} key=${run} run=${run} goOn=${goOn}
              name=${runs.length > 1 ? `search ${i + 1}` : "the search"} />`)}
          </div>
          ${server && !runs.length && html`<p class="hint">Solve the example, and watch its steps come.</p>`}
        </section>
      </div>
    </main>`;
}

render(html`<${Page} />`, document.getElementById("app"));
