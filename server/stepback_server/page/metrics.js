// A strip of the server's own metrics, read from Prometheus' text form.

import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { text } from "./api.js";

const POLL = 2000; // milliseconds

function sum(page, name) {
  let total = 0;
  for (const line of page.split("\n"))
    if (line.startsWith(name) && /[ {]/.test(line[name.length])) total += Number(line.slice(line.lastIndexOf(" ")));
  return total;
}

export function Metrics() {
  const [shown, setShown] = useState(null);
  useEffect(() => {
    let before = null;
    const look = async () => {
      if (document.hidden) return;
      try {
        const page = await text("/metrics");
        const now = performance.now();
        const tokens = sum(page, "stepback_key_tokens_total");
        const rate = before ? (1000 * (tokens - before.tokens)) / (now - before.now) : 0;
        before = { tokens, now };
        setShown({
          searching: sum(page, "stepback_searching"),
          queued: sum(page, "stepback_queued"),
          engines: sum(page, "stepback_engines_up"),
          rate: Math.max(0, Math.round(rate)),
        });
      } catch {
        setShown(null); // metrics may need a key, or be closed
      }
    };
    look();
    const timer = setInterval(look, POLL);
    return () => clearInterval(timer);
  }, []);
  if (!shown) return null;
  return html`<dl class="metrics" aria-label="Server">
    <div><dt>searching</dt><dd>${shown.searching}</dd></div>
    <div><dt>queued</dt><dd>${shown.queued}</dd></div>
    <div><dt>engines</dt><dd>${shown.engines}</dd></div>
    <div><dt>tokens/s</dt><dd>${shown.rate}</dd></div>
  </dl>`;
}
