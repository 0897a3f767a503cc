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

const kindOf = (value) => (value === null ? "null" : Array.isArray(value) ? "array" : typeof value);

/** Whether a value keeps the rules of a schema across its fields: required, const, enum, type,
 * properties, anyOf, allOf, if and then. Others are the server's to check. */
export function fits(schema, value) {
  const { required = [], properties = {}, anyOf, allOf = [] } = schema;
  const isKept =
    (!("const" in schema) || schema.const === value) &&
    (!schema.enum || schema.enum.includes(value)) &&
    (!schema.type || schema.type === kindOf(value) || (schema.type === "integer" && Number.isInteger(value))) &&
    required.every((key) => value?.[key] !== undefined) &&
    Object.entries(properties).every(([key, each]) => value?.[key] === undefined || fits(each, value[key])) &&
    (!anyOf || anyOf.some((each) => fits(each, value))) &&
    allOf.every((each) => fits(each, value));
  return isKept && (!schema.if || !fits(schema.if, value) || fits(schema.then ?? {}, value));
}

/** What a request may hold besides its problem: rules of choice, breadths, tokens, and which go together. */
export function limitsOf(openapi) {
  const { SolveRequest, Select, Budget } = openapi.components.schemas;
  const { breadth } = SolveRequest.properties;
  const tokens = Budget.properties.tokens.anyOf.find((each) => each.maximum);
  return {
    rules: Select.enum,
    breadth: { most: breadth.maximum, usual: breadth.default },
    tokens: tokens.maximum,
    allows: (request) => fits({ allOf: SolveRequest.allOf }, request),
  };
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
