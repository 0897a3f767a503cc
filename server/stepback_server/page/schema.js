// A form from a task's JSON schema: numbers, lists and lines get fields of their own, the rest JSON.

const refers = (schema, defs) =>
  schema?.$ref ? refers(defs[schema.$ref.split("/").pop()], defs) : (schema ?? {});

/** The tasks of the server: name, fields of its problem, and an example. */
export function tasksOf(openapi) {
  const defs = openapi.components?.schemas ?? {};
  const request = defs.SolveRequest;
  const examples = request.examples ?? [];
  return (request.oneOf ?? [])
    .filter((form) => form.properties?.task?.const)
    .map((form) => {
      const name = form.properties.task.const;
      const problem = refers(form.properties.problem, { ...defs, ...(form.properties.problem.$defs ?? {}) });
      const local = { ...defs, ...(problem.$defs ?? {}) };
      const fields = Object.entries(problem.properties ?? {}).map(([key, schema]) =>
        field(key, refers(schema, local), (problem.required ?? []).includes(key)),
      );
      const example = examples.find((each) => each.task === name)?.problem ?? {};
      return { name, fields, example };
    });
}

function field(key, schema, required) {
  const title = key.replaceAll("_", " ");
  const base = { key, title, required, help: schema.description ?? "" };
  const item = schema.items?.type;
  if (schema.type === "integer" || schema.type === "number") return { ...base, kind: "number" };
  if (schema.type === "string") return { ...base, kind: "string" };
  if (schema.type === "array" && (item === "integer" || item === "number"))
    return { ...base, kind: "numbers" };
  if (schema.type === "array" && item === "string") return { ...base, kind: "lines" };
  return { ...base, kind: "json" };
}

export function show(kind, value) {
  if (value === undefined || value === null) return "";
  if (kind === "numbers") return value.join(" ");
  if (kind === "lines") return value.join("\n");
  return kind === "json" ? JSON.stringify(value) : String(value);
}

/** The value that a text stands for. Throws an Error that says what to write. */
export function read({ kind, title }, text) {
  const given = text.trim();
  if (kind === "number") {
    if (!/^-?\d+(\.\d+)?$/.test(given)) throw new Error(`${title}: write a number.`);
    return Number(given);
  }
  if (kind === "numbers") {
    const parts = given.split(/[\s,;]+/).filter(Boolean);
    if (!parts.length || parts.some((part) => !/^-?\d+(\.\d+)?$/.test(part)))
      throw new Error(`${title}: write numbers with spaces between them.`);
    return parts.map(Number);
  }
  if (kind === "lines") return text.replace(/\s+$/, "").split("\n");
  if (kind === "string") return text;
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(`${title}: write JSON.`);
  }
}
