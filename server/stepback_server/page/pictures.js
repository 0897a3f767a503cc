// Pictures of answers: a maze with its way, a Sudoku that fills. Other tasks show their steps.

const cell = (name) => [name.charCodeAt(0) - 65, name.charCodeAt(1) - 97];

function maze(problem, steps) {
  const grid = problem.rows.map((row) => [...row]);
  let before = null;
  grid.forEach((row, y) => row.forEach((sign, x) => sign === "S" && (before = [y, x])));
  for (const step of steps) {
    const found = /^[<>^v]([A-Z][a-z])$/.exec(step);
    if (!found || !before) break;
    const [row, column] = cell(found[1]);
    const [y, x] = [2 * row + 1, 2 * column + 1];
    const between = [(y + before[0]) / 2, (x + before[1]) / 2];
    for (const [py, px] of [between, [y, x]])
      if (grid[py]?.[px] === ".") grid[py][px] = "o";
    before = [y, x];
  }
  return grid.map((row) => row.map((sign) => ({ sign, kind: { "#": "wall", o: "way" }[sign] ?? "" })));
}

function sudoku(problem, steps) {
  const grid = problem.rows.map((row) =>
    [...row].map((sign) => (/[1-9]/.test(sign) ? { sign, kind: "given" } : { sign: "", kind: "" })),
  );
  for (const step of steps) {
    const found = /^([A-Z][a-z])(\d)$/.exec(step);
    if (!found) break;
    const [row, column] = cell(found[1]);
    if (grid[row]?.[column]) grid[row][column] = { sign: found[2], kind: "filled" };
  }
  return grid;
}

const PICTURES = { maze, sudoku };

/** Rows of {sign, kind}, or null where the task has no picture. */
export function picture(task, problem, steps) {
  try {
    return PICTURES[task]?.(problem, steps) ?? null;
  } catch {
    return null; // a problem that is not finished in the form
  }
}
