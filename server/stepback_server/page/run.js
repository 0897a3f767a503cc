// One search: its request, its growing tree, its running totals and its result.

import { events } from "./api.js";
import { Tree } from "./tree.js";

const MOST_ANSWERS = 1024; // as no request may ask for more
const isNumber = Number.isFinite;
const isText = (text) => typeof text === "string";
const areSteps = (steps) => Array.isArray(steps) && steps.every(isText);
const isAnswer = (answer) => areSteps(answer?.steps) && (answer.reason == null || isText(answer.reason));
const isNode = (node) =>
  isNumber(node?.id) && (node.parent === null || isNumber(node.parent)) && isNumber(node.kept_steps) && areSteps(node.steps);

const isTotal = (total) =>
  [total?.seconds, total?.tokens, total?.branches, total?.inFlight].every(isNumber);

/** A result from a file, a link or a server of another version. Throws for what cannot be drawn. */
function checked(result) {
  const { usage, answer, candidates, tree } = result;
  const isWhole =
    [result.status, result.strategy, result.stop_reason].every(isText) &&
    isNumber(usage?.seconds_searching) && isNumber(usage.generated_tokens) &&
    (answer === null || isAnswer(answer)) && Array.isArray(candidates) && candidates.every(isAnswer) &&
    (!tree || (Array.isArray(tree) && tree.every(isNode)));
  if (!isWhole) throw new Error("It is no search's result.");
  return result;
}

/** Where it has one: files of earlier versions have no timeline. */
function checkedTimeline(totals) {
  const isWhole = totals === undefined || (Array.isArray(totals) && totals.length > 0 && totals.every(isTotal));
  if (!isWhole) throw new Error("It is no search's timeline.");
  return totals;
}

export class Run {
  constructor(request, label) {
    this.request = request;
    this.label = label;
    this.tree = new Tree(request.steps);
    this.state = "waiting"; // waiting, searching, done, failed, stopped, cancelled
    this.error = null;
    this.result = null;
    this.limits = null;
    this.totals = []; // {seconds, tokens, branches, inFlight}, as they came
    this.lit = new Set();
    this.changed = () => {};
    this._abort = new AbortController();
  }

  go() {
    // One that ran in the background is watched now. All answers: each step tells why it failed.
    const body = { ...this.request, background: false, stream: true, tree: true, candidates: MOST_ANSWERS };
    return this._read(events("/solve", body, this._abort.signal));
  }

  /** Follow a background search from its first event. It goes on where this stops. */
  follow(id) {
    this.isFollowed = true;
    return this._read(events(`/v1/searches/${encodeURIComponent(id)}/events`, undefined, this._abort.signal));
  }

  async _read(stream) {
    try {
      for await (const event of stream) this._take(event);
      if (this.state === "waiting" || this.state === "searching") this._fail("The stream ended early.");
    } catch (error) {
      if (error.name === "AbortError") this.state = "stopped";
      else this._fail(error.message);
    }
    this.changed();
  }

  stop() {
    this._abort.abort();
  }

  _fail(message) {
    this.state = "failed";
    this.error = message;
  }

  _take(event) {
    if (event.type === "started") {
      this.state = "searching";
      this.limits = event.limits;
      // Begun again where its controller was lost.
      this.tree = new Tree(this.request.steps);
      this.totals = [];
    } else if (event.type === "step") this.tree.step(event);
    else if (event.type === "backtrack") this.tree.backtrack(event);
    else if (event.type === "candidate") this.tree.candidate(event);
    else if (event.type === "usage")
      this._total(event.seconds_searching, event.generated_tokens, event.branches, event.in_flight);
    else if (event.type === "result") this.finish(event.result);
    else if (event.type === "error") this._fail(event.error.message);
    else if (event.type === "cancelled") this.state = "cancelled";
    this.changed();
  }

  _total(seconds, tokens, branches, inFlight = 0) {
    this.totals.push({ seconds, tokens, branches, inFlight });
  }

  /** Show a result, of this search or loaded from elsewhere with its `totals`. */
  finish(result, totals) {
    const { usage } = result;
    this.result = result;
    this.state = "done";
    if (result.tree) {
      const answers = [...(result.answer ? [result.answer] : []), ...result.candidates];
      this.tree = Tree.of(result.tree, answers);
    }
    if (result.answer) this.lit = this.tree.answer(result.answer.steps);
    if (totals) this.totals = totals;
    else this._total(usage.seconds_searching, usage.generated_tokens, this.tree.count);
  }

  static of({ request, result, label, totals, limits }) {
    const { strategy } = checked(result);
    const run = new Run(request ?? {}, label ?? strategy.replaceAll("_", " "));
    run.limits = isNumber(limits?.tokens) ? limits : null;
    run.finish(result, checkedTimeline(totals));
    return run;
  }

  /** False for a result alone: nothing says which problem it is of. */
  get canGoOn() {
    return Boolean(this.request.task ?? this.request.prompt);
  }

  toJSON() {
    const { request, label, result, totals, limits } = this;
    return { request, label, result, totals, limits };
  }
}
