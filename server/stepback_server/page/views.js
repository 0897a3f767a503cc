// Views of one run: the tree, the timeline, the picture, the details of a step.

import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./vendor/htm-preact.js";
import { picture } from "./pictures.js";
import { isStruck, rows, stepsTo } from "./tree.js";

const ROW = 28; // pixels; the same in style.css
const SPARE = 10; // rows drawn beyond those in sight

/** Redraw at most once a frame while a run changes. */
export function useRun(run) {
  const [, tick] = useState(0);
  useEffect(() => {
    let asked = 0;
    run.changed = () => {
      asked ||= requestAnimationFrame(() => {
        asked = 0;
        tick((n) => n + 1);
      });
    };
    run.changed();
    return () => {
      cancelAnimationFrame(asked);
      run.changed = () => {};
    };
  }, [run]);
}

const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

function verdictOf(at) {
  const { verified, reason } = at.answer ?? {};
  if (verified) return ["✓ accepted", "good"];
  if (at.ends.answer) return [verified === false ? `✗ ${(reason ?? "refused").replaceAll("_", " ")}` : "answer", "answer"];
  if (at.ends.illegal) return ["illegal", "bad"];
  if (at.ends.backtrack) return ["taken back", "bad"];
  return at.ends.unfinished && !at.children.size ? ["cut", "cut"] : ["", ""];
}

/** Mean probability of a token of the likeliest branch through a step. */
const likelihood = (step) => Math.exp(step.likeliest);

function Step({ step, lit }) {
  const style = {
    ...(step.pMarker ? { "--p": Math.min(1, step.pMarker) } : {}),
    ...(step.likeliest === null ? {} : { "--likelihood": likelihood(step) }),
  };
  const kind = [isStruck(step) && "struck", lit && "lit"];
  const told = [
    step.likeliest !== null && `likelihood ${percent(likelihood(step))} a token`,
    step.pMarker !== null && `P(marker) ${percent(step.pMarker)}`,
  ];
  return html`<span class=${`step ${kind.filter(Boolean).join(" ")}`} style=${style}
    title=${told.filter(Boolean).join(", ") || null}
    >${isStruck(step) ? html`<s>${step.text}</s>` : step.text}</span>`;
}

function Legend() {
  return html`<p class="legend">
    <span class="step" style=${{ "--likelihood": 1 }}>bold, over a thick line</span> likely, by the
    mean probability of a token of the likeliest branch through it
    · <span class="step struck"><s>struck</s></span> taken back or illegal
    · <span class="step" style=${{ "--p": 1 }}>shade</span> P(marker)
    · <span class="step lit">lit</span> the answer’s path</p>`;
}

export function TreeView({ run, chosen, choose, name }) {
  const [collapsed, setCollapsed] = useState(() => new Set());
  const [top, setTop] = useState(0);
  const [height, setHeight] = useState(400);
  const box = useRef(null);
  const version = run.tree.version;
  const found = useMemo(() => rows(run.tree, collapsed), [run.tree, version, collapsed]);
  const at = found.findIndex((row) => row.at === chosen);
  useLayoutEffect(() => {
    const watch = new ResizeObserver(() => setHeight(box.current?.clientHeight ?? 400));
    watch.observe(box.current);
    return () => watch.disconnect();
  }, []);

  const fold = (row, open) => {
    const next = new Set(collapsed);
    if (open) next.delete(row.id);
    else next.add(row.id);
    setCollapsed(next);
  };
  const goTo = (index) => {
    const row = found[Math.max(0, Math.min(found.length - 1, index))];
    if (!row) return;
    choose(row.at);
    const y = found.indexOf(row) * ROW;
    const { scrollTop, clientHeight } = box.current;
    if (y < scrollTop) box.current.scrollTop = y;
    else if (y + ROW > scrollTop + clientHeight) box.current.scrollTop = y + ROW - clientHeight;
  };
  const onKey = (event) => {
    const row = found[at];
    const page = Math.floor(height / ROW) - 1;
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page };
    if (event.key in moves) goTo((at < 0 ? -1 : at) + moves[event.key]);
    else if (event.key === "Home") goTo(0);
    else if (event.key === "End") goTo(found.length - 1);
    else if (event.key === "ArrowRight" && row) row.open ? goTo(at + 1) : fold(row, true);
    else if (event.key === "ArrowLeft" && row?.open && row.below) fold(row, false);
    else return;
    event.preventDefault();
  };

  // An id has no spaces.
  const idOf = (row) => `${name}-${row.id}`.replaceAll(" ", "-");
  const first = Math.max(0, Math.floor(top / ROW) - SPARE);
  const seen = found.slice(first, first + Math.ceil(height / ROW) + 2 * SPARE);
  return html`<div class="tree" role="tree" tabindex="0" aria-label=${name} ref=${box}
    aria-activedescendant=${at >= first && at < first + seen.length ? idOf(found[at]) : null}
    onScroll=${(event) => setTop(event.target.scrollTop)} onKeyDown=${onKey}>
    <div class="all" style=${{ height: `${Math.max(1, found.length) * ROW}px` }} role="presentation">
    ${seen.map((row, i) => {
      const [verdict, kind] = verdictOf(row.at);
      return html`<div key=${row.id} id=${idOf(row)} role="treeitem" class="row"
        aria-level=${row.depth + 1} aria-posinset=${row.place} aria-setsize=${row.of}
        aria-selected=${row.at === chosen}
        aria-expanded=${row.below ? String(row.open) : null}
        style=${{ top: `${(first + i) * ROW}px`, "--depth": row.depth }}
        onClick=${() => { choose(row.at); box.current.focus(); }}>
        <span class="fold" aria-hidden="true" onClick=${(event) => { event.stopPropagation(); if (row.below) fold(row, !row.open); }}
          >${row.below ? (row.open ? "▾" : "▸") : "·"}</span>
        ${row.chain.map((step) => html`<${Step} step=${step} lit=${run.lit.has(step)} />`)}
        ${row.at.branches > 1 && html`<span class="times">×${row.at.branches}</span>`}
        ${verdict && html`<span class=${`verdict ${kind}`}>${verdict}</span>`}
      </div>`;
    })}
    </div>
  </div>`;
}

export function Timeline({ run }) {
  const points = [{ seconds: 0, tokens: 0, branches: 0, inFlight: 0 }, ...run.totals];
  const last = points[points.length - 1];
  const most = Math.max(1, last.tokens);
  const long = Math.max(0.001, last.seconds);
  const busiest = Math.max(1, ...points.map((one) => one.inFlight));
  const isGoing = run.state === "waiting" || run.state === "searching";
  const inFlight = isGoing ? `${last.inFlight} in flight, ` : busiest > 1 ? `up to ${busiest} at once, ` : "";
  const wide = 300;
  const line = (height) =>
    points.map((one) => `${(one.seconds / long) * wide},${58 - height(one) * 52}`).join(" ");
  return html`<figure class="timeline">
    <svg viewBox=${`0 0 ${wide} 60`} role="img" preserveAspectRatio="none"
      aria-label=${`${last.tokens} tokens in ${last.seconds.toFixed(2)} seconds`}>
      <polyline class="in-flight" points=${line((one) => one.inFlight / busiest)} />
      <polyline points=${line((one) => one.tokens / most)} />
    </svg>
    <figcaption>${last.tokens} tokens${run.limits && ` of ${run.limits.tokens}`},
      ${` ${last.branches} ${last.branches === 1 ? "branch" : "branches"}, ${inFlight}${last.seconds.toFixed(2)} s`}</figcaption>
  </figure>`;
}

export function Picture({ run, steps }) {
  const grid = picture(run.request.task, run.request.problem, steps);
  // A plug-in's own, of the answer alone.
  const drawn = run.result?.answer?.steps.join("\n") === steps.join("\n") ? run.result.picture : null;
  if (!grid) return drawn ? html`<pre class="picture" role="img" aria-label="the answer">${drawn}</pre>` : null;
  const label = grid.map((row) => row.map(({ sign }) => sign || "empty").join(" ")).join(", ");
  return html`<table class=${`picture ${run.request.task}`} role="img" aria-label=${label}><tbody>
    ${grid.map((row) => html`<tr>${row.map(({ sign, kind }) =>
      html`<td class=${kind}>${sign}</td>`)}</tr>`)}</tbody></table>`;
}

const number = (value) => (Number.isFinite(value) ? value.toFixed(4) : null);

function checked(answer) {
  if (typeof answer?.verified !== "boolean") return answer?.reason ?? null;
  return answer.verified ? "accepts" : `refuses: ${answer.reason ?? "no reason given"}`;
}

export function Details({ run, at, goOn, name }) {
  // While it runs, the branch that came last: its picture fills with the search.
  const answer = run.result ? (run.result.answer?.steps ?? []) : stepsTo(run.tree.latest);
  const steps = at ? stepsTo(at) : answer;
  const title = run.result ? (run.result.answer ? "Answer" : "No answer") : steps.length ? "Latest branch" : "";
  const entries = at && [
    ["branches through it", at.branches],
    ["kept by", Math.max(0, at.kept)],
    ["P(marker) after it", at.pMarker === null ? "not known" : percent(at.pMarker)],
    ["mean log-probability", number(at.likeliest)],
    ["likelihood of a token", at.likeliest === null ? null : percent(likelihood(at))],
    ["confidence", number(at.answer?.confidence)],
    ["scorer", number(at.answer?.scorer_score)],
    ["checker", checked(at.answer)],
    ["ended here", Object.entries(at.ends).map(([how, n]) => `${n} ${how}`).join(", ") || null],
  ].filter(([, value]) => value !== null);
  return html`<section class="details" aria-label=${`Chosen step of ${name}`}>
    ${(at || title) && html`<h3>${at ? "Chosen step" : title}</h3>`}
    <ol>${steps.map((step) => html`<li>${step}</li>`)}</ol>
    <${Picture} run=${run} steps=${steps} />
    ${entries && html`<dl>${entries.map(([key, value]) => html`<dt>${key}</dt><dd>${value}</dd>`)}</dl>`}
    ${at && !at.ends.answer && run.canGoOn && html`<button type="button" onClick=${() => goOn(run, steps)}
      disabled=${isStruck(at)}>Continue from here</button>`}
  </section>`;
}

const STATE = { waiting: "waits for its turn", searching: "searches", stopped: "stopped", failed: "failed", cancelled: "cancelled" };

export function RunView({ run, name, goOn }) {
  useRun(run);
  const [chosen, choose] = useState(null);
  const { result } = run;
  const reason = result && result.stop_reason !== result.status ? ` (${result.stop_reason.replaceAll("_", " ")})` : "";
  const status = result ? `${result.status}${reason}` : STATE[run.state];
  return html`<article class="run" aria-label=${name}>
    <header>
      <h2>${run.label}</h2>
      <p role="status" class=${`status ${result?.status ?? run.state}`}>${status}</p>
      ${["waiting", "searching"].includes(run.state) &&
      html`<button type="button" onClick=${() => run.stop()}>${run.isFollowed ? "Stop watching" : "Stop"}</button>`}
    </header>
    ${run.error && html`<p class="error" role="alert">${run.error}</p>`}
    ${result?.warning && html`<p class="warning">${result.warning}</p>`}
    <${Timeline} run=${run} />
    ${result?.status === "solved" && run.tree.count === 1 && html`<p class="hint">The first branch was right.
      To see steps taken back, choose self-backtracking by perplexity, or another problem.</p>`}
    <div class="halves">
      <div><${TreeView} run=${run} chosen=${chosen} choose=${choose} name=${`Tree of ${name}`} /><${Legend} /></div>
      <${Details} run=${run} at=${chosen} goOn=${goOn} name=${name} />
    </div>
  </article>`;
}
