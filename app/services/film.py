"""A trajectory as one HTML file that plays anywhere, without this app and without a network."""

from __future__ import annotations

import json
import re
from html import escape
from pathlib import Path
from typing import Any

_APP = Path(__file__).parents[1]
_SCRIPTS = ("charts.js", "scene3d.js", "crystal_view.js")
_IMPORT = re.compile(r'^import .* from "\./\w+\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export ", re.MULTILINE)
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body {{ margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #16242a;
font-family: system-ui, sans-serif; --st-text-color: #16242a; --st-background-color: #ffffff;
--st-secondary-background-color: #eff3f2; --st-border-color: #d3dcdb; --st-primary-color: #0b6b63;
--st-font: system-ui, sans-serif; }} h1 {{ font-size: 1.4rem; }} p {{ color: #54646a; }}
{style}</style></head>
<body><h1>{title}</h1><p>{note}</p>
<div id="view">{body}</div>
<script>{library}</script>
<script type="module">{script}
draw({{ data: {data}, parentElement: document.getElementById("view") }});</script>
</body></html>
"""


def film(data: dict[str, Any], title: str, note: str) -> str:
    """The page.

    Args:
        data: as the viewer takes it, see `app.components.crystal_viewer`.
        title, note: shown above the film.
    """
    components, static = _APP / "components", _APP / "static"
    modules = [(static / name).read_text(encoding="utf-8") for name in _SCRIPTS]
    script = "\n".join(_EXPORT.sub("", _IMPORT.sub("", text)) for text in modules)
    return _PAGE.format(
        title=escape(title),
        note=escape(note),
        style=(components / "crystal_viewer.css")
        .read_text(encoding="utf-8")
        .replace(":host", "#view"),
        body=(components / "crystal_viewer.html").read_text(encoding="utf-8"),
        library=(static / "3Dmol-min.js")
        .read_text(encoding="utf-8")
        .replace("</script", "<\\/script"),
        script=script,
        data=json.dumps(data).replace("</", "<\\/"),
    )
