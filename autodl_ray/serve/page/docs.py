"""The description of the interface as a page to read: one section a path, without scripts."""

from __future__ import annotations

import json
from html import escape
from typing import Any

__all__ = ["docs_page"]

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>The interface</title><style>"""
STYLE = """
:root { --paper: #f6f5f2; --card: #fff; --ink: #1c1b22; --soft: #63616e; --code: #ecebf1; --accent: #4f46e5; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #131217; --card: #1d1c23; --ink: #f0eff4; --soft: #a5a2b1; --code: #2a2932; --accent: #a5a0ff; }
}
body { margin: 0 auto; max-width: 56rem; padding: 2rem 1rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
section { background: var(--card); border-radius: 14px; padding: 1rem 1.25rem; margin: 1rem 0; }
h2 { font-size: 1rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 b { color: var(--accent); } p { margin: .25rem 0; color: var(--soft); }
pre { background: var(--code); border-radius: 8px; padding: .6rem .8rem; overflow-x: auto; font-size: .85rem; }
table { border-collapse: collapse; } td { padding: .1rem 1rem .1rem 0; vertical-align: top; }
a { color: var(--accent); }
"""
"""Of the page; its hash stands in the Content-Security-Policy."""


def docs_page(document: dict[str, Any]) -> str:
    """Return the page for an OpenAPI document.

    Args:
        document: See :func:`~autodl_ray.serve.page.openapi.openapi`.
    """
    info = document["info"]
    parts = [_HEAD, STYLE, f"</style></head><body><h1>{escape(info['title'])} {escape(info['version'])}</h1>"]
    parts.append(f"<p>{escape(info['description'])}</p><p><a href='openapi.json'>openapi.json</a></p>")
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parts.append(_section(method.upper(), path, operation))
    return "".join(parts) + "</body></html>"


def _section(method: str, path: str, operation: dict[str, Any]) -> str:
    lines = [f"<section><h2><b>{method}</b> {escape(path)}</h2><p>{escape(operation['summary'])}</p>"]
    if "description" in operation:
        lines.append(f"<p>{escape(operation['description'])}</p>")
    rows = [
        f"<tr><td><code>{escape(p['name'])}</code></td><td>{escape(p.get('description', p['in']))}</td></tr>"
        for p in operation.get("parameters", ())
    ]
    if rows:
        lines.append(f"<table>{''.join(rows)}</table>")
    if method == "POST" and path.endswith("predict"):
        ways = ("--data-binary @a.jpg", "-F file=@a.jpg -F file=@b.png")
        lines.append(f"<pre>{escape(chr(10).join(f'curl {way} URL{path}' for way in ways))}</pre>")
    lines += _examples("Sent", operation.get("requestBody", {}).get("content", {}))
    for code, response in operation["responses"].items():
        lines += _examples(f"{code}: {response['description']}", response.get("content", {}))
    return "".join(lines) + "</section>"


def _examples(title: str, content: dict[str, Any]) -> list[str]:
    shown = []
    for kind in content.values():
        values = [entry["value"] for entry in kind.get("examples", {}).values()]
        shown += values if values else [kind["example"]] if "example" in kind else []
    texts = (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in shown)
    return [f"<p>{escape(title)}</p>", *(f"<pre>{escape(text)}</pre>" for text in texts)] if shown else []
