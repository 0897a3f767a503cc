// The form: a problem of a task or a prompt, and how to search.

import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { read, show } from "./schema.js";

const STRATEGIES = [
  ["best_first", "best-first"],
  ["self_backtracking", "self-backtracking"],
  ["best_of_n", "best of N"],
  ["majority", "majority vote"],
  ["greedy", "greedy"],
];
const PROMPT = "a prompt";

function Problem({ task, texts, write }) {
  return task.fields.map((field) => {
    const id = `field-${field.key}`;
    const common = { id, value: texts[field.key] ?? "", onInput: (event) => write(field.key, event.target.value) };
    const long = field.kind === "lines" || field.kind === "json";
    return html`<label for=${id}>${field.title}</label>
      ${long
        ? html`<textarea ...${common} rows=${Math.max(3, (texts[field.key] ?? "").split("\n").length)} spellcheck=${false} />`
        : html`<input ...${common} autocomplete="off" />`}`;
  });
}

/** `allows`: whether a rule of choice goes with a strategy, for the problem in the form. */
function Search({ legend, value, set, name, limits, allows }) {
  return html`<fieldset><legend>${legend}</legend>
    <label for=${`${name}-strategy`}>strategy</label>
    <select id=${`${name}-strategy`} value=${value.strategy} onChange=${(event) => set({ ...value, strategy: event.target.value })}>
      ${STRATEGIES.map(([id, title]) => html`<option value=${id}>${title}</option>`)}</select>
    <label for=${`${name}-breadth`}>breadth</label>
    <input id=${`${name}-breadth`} type="number" min="1" max=${limits.breadth.most} required value=${value.breadth}
      onInput=${(event) => set({ ...value, breadth: event.target.value })} />
    <label for=${`${name}-select`}>choose by</label>
    <select id=${`${name}-select`} value=${allows(value, value.select) ? value.select : ""} onChange=${(event) => set({ ...value, select: event.target.value })}>
      <option value="">the default</option>
      ${limits.rules.map((rule) => html`<option value=${rule} disabled=${!allows(value, rule)}>${rule}</option>`)}</select>
  </fieldset>`;
}

const texts = (task, problem = task.example) =>
  Object.fromEntries(task.fields.map((field) => [field.key, show(field.kind, problem[field.key])]));

/** `preset`: a request that the form takes over, with its steps until another problem or `clear`. */
export function Form({ tasks, limits, scorers, start, busy, preset, clear }) {
  const first = tasks[0];
  const [name, setName] = useState(first?.name ?? PROMPT);
  const [written, write] = useState(first ? texts(first) : {});
  const [prompt, setPrompt] = useState("");
  const [budget, setBudget] = useState("");
  const [seed, setSeed] = useState("");
  const [scorer, setScorer] = useState("");
  const [one, setOne] = useState({ strategy: "best_first", breadth: limits.breadth.usual, select: "" });
  const [two, setTwo] = useState({ strategy: "best_of_n", breadth: limits.breadth.usual, select: "" });
  const [compares, setCompares] = useState(false);
  const [error, setError] = useState(null);
  const task = tasks.find((each) => each.name === name);

  useEffect(() => {
    if (!preset) return;
    const known = tasks.find((each) => each.name === preset.task);
    if (known) write(texts(known, preset.problem));
    else if (preset.prompt) setPrompt(preset.prompt);
    else return clear(); // of a task that is not served here
    setName(known?.name ?? PROMPT);
    const { strategy, breadth = limits.breadth.usual, select } = preset;
    setOne({ strategy: strategy ?? one.strategy, breadth, select: select ?? "" });
    setBudget(preset.budget?.tokens ?? "");
    setSeed(String(preset.seed ?? "")); // 0 is a seed, too
    setScorer(scorers.includes(preset.scorer) ? preset.scorer : "");
  }, [preset]);

  /** Steps are of one problem alone. */
  const edit = (change) => (...changed) => {
    clear();
    change(...changed);
  };
  const allows = ({ strategy }, select) =>
    !select ||
    limits.allows({ ...(task ? { task: name } : { prompt }), strategy, select, ...(scorer ? { scorer } : {}) });
  // Two are compared at equal tokens: left to the server, each strategy has a budget of its own.
  const tokens = budget || (compares ? limits.tokens : "");

  const problem = () => {
    if (!task) {
      if (!prompt) throw new Error("prompt: write something to continue.");
      return { prompt };
    }
    const values = {};
    for (const field of task.fields) {
      const given = written[field.key] ?? "";
      if (given.trim() || field.required) values[field.key] = read(field, given);
    }
    return { task: task.name, problem: values };
  };
  const search = ({ strategy, breadth, select }) => ({
    strategy,
    breadth: Number(breadth),
    ...(select && allows({ strategy }, select) ? { select } : {}),
    ...(tokens ? { budget: { tokens: Number(tokens) } } : {}),
    ...(seed ? { seed: Number(seed) } : {}),
    ...(scorer ? { scorer } : {}),
  });
  const submit = (event) => {
    event.preventDefault();
    try {
      const asked = { ...problem(), ...(preset?.steps ? { steps: preset.steps } : {}) };
      setError(null);
      start([one, ...(compares ? [two] : [])].map((way) => ({ ...asked, ...search(way) })));
    } catch (failure) {
      setError(failure.message);
    }
  };

  return html`<form class="ask" onSubmit=${submit}>
    <label for="task">problem</label>
    <select id="task" value=${name} onChange=${edit((event) => {
      setName(event.target.value);
      const next = tasks.find((each) => each.name === event.target.value);
      if (next) write(texts(next));
    })}>
      ${[...tasks.map((each) => each.name), PROMPT].map((each) => html`<option value=${each}>${each}</option>`)}
    </select>
    ${task
      ? html`<${Problem} task=${task} texts=${written} write=${edit((key, text) => write({ ...written, [key]: text }))} />`
      : html`<label for="prompt">prompt</label>
          <textarea id="prompt" rows="4" value=${prompt} onInput=${edit((event) => setPrompt(event.target.value))} />`}
    <${Search} legend="Search" name="one" value=${one} set=${setOne} limits=${limits} allows=${allows} />
    ${scorers.length > 0 && html`<label for="scorer">scorer</label>
      <select id="scorer" value=${scorer} onChange=${(event) => setScorer(event.target.value)}>
        <option value="">none</option>
        ${scorers.map((each) => html`<option value=${each}>${each}</option>`)}</select>`}
    <label for="budget">token budget</label>
    <input id="budget" type="number" min="1" max=${limits.tokens} value=${budget} onInput=${(event) => setBudget(event.target.value)}
      placeholder=${compares ? `${limits.tokens} for each` : "the server's"} />
    <label for="seed">seed</label>
    <input id="seed" type="number" min="0" placeholder="random" value=${seed} onInput=${(event) => setSeed(event.target.value)} />
    <label class="check"><input type="checkbox" checked=${compares} onChange=${(event) => setCompares(event.target.checked)} />
      compare with a second search</label>
    ${compares && html`<${Search} legend="Second search" name="two" value=${two} set=${setTwo} limits=${limits} allows=${allows} />`}
    ${preset?.steps && html`<p class="preset">continues ${preset.steps.length} steps
      <button type="button" onClick=${clear}>from the start instead</button></p>`}
    ${error && html`<p class="error" role="alert">${error}</p>`}
    <button class="go" disabled=${busy}>Solve</button>
  </form>`;
}
