"""The model card of a checkpoint, from what its manifest says."""

import json

from stepback_core.manifest import Manifest

_TEMPLATE = """\
---
library_name: transformers
{licence}pipeline_tag: text-generation
tags: [self-backtracking, {tasks}]
---

# {name}

A causal language model that emits `{marker}` after a step that it believes to be wrong
(self-backtracking, arXiv 2502.04404). It started from {base}; it knows: {tasks}.

Serve it with `stepback serve --model FOLDER`; plain `transformers` and plain vLLM load it too.

## Training

| | |
| --- | --- |
{facts}

Data split: {split}.

The whole recipe, which reproduces it:

```json
{recipe}
```
"""


def model_card(manifest: Manifest) -> str:
    """Markdown with the front matter of a Hugging Face model card."""
    facts = [f"| {name.replace('_', ' ')} | {value} |" for name, value in manifest.training.items()]
    return _TEMPLATE.format(
        name=manifest.name,
        marker=manifest.grammar.marker,
        tasks=", ".join(manifest.tasks or ["traces"]),
        # A model that started from another one is under that one's licence.
        licence="" if manifest.base_model else "license: apache-2.0\n",
        base=manifest.base_model or "random weights",
        split=manifest.split,
        facts="\n".join(facts),
        recipe=json.dumps(manifest.recipe, indent=2),
    )
