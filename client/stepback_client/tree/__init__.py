"""A search's tree as something to look at: laid out once, drawn as text, Mermaid or SVG. Pure."""
