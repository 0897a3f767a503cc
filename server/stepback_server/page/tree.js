// A search's tree as a trie of steps: equal steps after equal steps are one node, so equal
// branches fold by themselves, and thousands of branches are few rows.

const DROPPED = new Set(["backtrack", "illegal"]);

function node(text, parent) {
  return {
    text,
    parent,
    depth: parent ? parent.depth + 1 : 0,
    children: new Map(),
    branches: 0, // branches that sampled this step
    kept: 0, // of these, how many did not drop it
    ends: {}, // outcomes of the branches that end here, counted
    pMarker: null,
    likeliest: null, // mean log-probability a token of the likeliest branch through it
    answer: null, // as the server judged it, where one ends here
    id: null,
  };
}

export class Tree {
  /** `given`: the steps that the search starts from. */
  constructor(given = []) {
    this.root = node("", null);
    this.paths = new Map(); // branch id -> nodes from the root to its end
    this.count = 0;
    this.version = 0;
    this.nodes = 1;
    this.latest = this.root; // the step that came last
    const start = [this.root];
    for (const text of given) start.push(this._child(start[start.length - 1], text));
    this.paths.set(0, start);
  }

  /** Nodes of the first `kept` steps of a branch. A parent that never came counts as the start. */
  _start(parent, kept) {
    return (this.paths.get(parent) ?? this.paths.get(0)).slice(0, kept + 1);
  }

  _path(branch, parent, kept) {
    let path = this.paths.get(branch);
    if (!path) {
      path = this._start(parent, kept);
      this.paths.set(branch, path);
      this.count += 1;
    }
    return path;
  }

  _child(above, text) {
    let child = above.children.get(text);
    if (!child) {
      child = node(text, above);
      child.id = `n${this.nodes}`;
      this.nodes += 1;
      above.children.set(text, child);
    }
    return child;
  }

  _add(path, text, pMarker) {
    const child = this._child(path[path.length - 1], text);
    child.branches += 1;
    child.kept += 1;
    if (pMarker !== null && pMarker !== undefined)
      child.pMarker = Math.max(child.pMarker ?? 0, pMarker);
    path.push(child);
    this.latest = child;
    this.version += 1;
    return child;
  }

  _end(path, outcome) {
    const last = path[path.length - 1];
    last.ends[outcome] = (last.ends[outcome] ?? 0) + 1;
    if (DROPPED.has(outcome)) last.kept -= 1;
    this.version += 1;
    return last;
  }

  /** Every step of a branch is at least as likely as the branch. */
  _score(path, score) {
    if (!Number.isFinite(score)) return;
    for (let at = path[path.length - 1]; at; at = at.parent) {
      // Those above are of all branches below.
      if (at.likeliest !== null && at.likeliest >= score) break;
      at.likeliest = score;
    }
  }

  step(event) {
    const path = this._path(event.branch, event.parent, event.index);
    while (path.length > event.index + 1) path.pop();
    this._add(path, event.text, event.p_marker);
    this._score(path, event.score);
  }

  backtrack(event) {
    const path = this._path(event.branch, event.parent, event.kept_steps);
    for (const struck of event.struck ?? []) {
      // The struck step may be unfinished, and so was never told as a step.
      if (path.length <= struck.index + 1 && struck.text) this._add(path, struck.text, null);
    }
    this._end(path, event.outcome);
  }

  candidate(event) {
    const path = this._path(event.branch, event.parent, event.kept_steps);
    const last = this._end(path, "answer");
    last.answer = event.answer;
    this._score(path, event.answer.score);
  }

  /** From the `tree` of a result. */
  static of(nodes, answers = []) {
    const tree = new Tree(nodes.find((each) => each.parent === null)?.steps);
    const known = new Map(answers.map((answer) => [answer.steps.join("\n"), answer]));
    for (const each of nodes) {
      if (each.parent === null) continue;
      const path = tree._path(each.id, each.parent, each.kept_steps);
      each.steps.forEach((text, i) => tree._add(path, text, each.p_marker?.[i]));
      const last = tree._end(path, each.outcome ?? "unfinished");
      tree._score(path, each.score);
      const answer = each.outcome === "answer" && known.get(path.slice(1).map((one) => one.text).join("\n"));
      if (answer) last.answer = answer;
    }
    return tree;
  }

  /** Mark the path of the answer: returns its nodes. */
  answer(steps) {
    const lit = new Set([this.root]);
    let at = this.root;
    for (const text of steps) {
      at = at.children.get(text);
      if (!at) break;
      lit.add(at);
    }
    return lit;
  }
}

export const stepsTo = (at) => {
  const steps = [];
  for (let each = at; each.parent; each = each.parent) steps.unshift(each.text);
  return steps;
};

export const isStruck = (at) =>
  at.kept <= 0 && !at.children.size && (at.ends.backtrack || at.ends.illegal) > 0;

/** Whether no branch ended here but those that went on after a cut. */
const isPassed = (at) => Object.keys(at.ends).every((how) => how === "unfinished");

/** Siblings with their depth and place, the last one first: a stack takes them from its end. */
const siblings = (children, depth) =>
  [...children.values()].map((each, i) => [each, depth, i + 1, children.size]).reverse();

/** The rows to draw, from the root: chains of single steps share a row. */
export function rows(tree, collapsed) {
  const found = [];
  const stack = siblings(tree.root.children, 0);
  while (stack.length) {
    const [first, depth, place, of] = stack.pop();
    const chain = [first];
    let at = first;
    while (at.children.size === 1 && isPassed(at)) {
      at = at.children.values().next().value;
      chain.push(at);
    }
    const open = !collapsed.has(at.id);
    found.push({ id: at.id, chain, at, depth, place, of, open, below: at.children.size });
    if (open) for (const each of siblings(at.children, depth + 1)) stack.push(each);
  }
  return found;
}
