"""What MkDocs runs while it builds the site: it adds the generated pages, and takes links out of the site apart.

A link to a file of the checkout that is no page, such as `../sae/settings.py`, becomes the file's path as code: the
site has no copy of the file. A link to a page that does not exist fails the strict build.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SHIM = "https://unpkg.com/iframe-worker/shim"  # what the theme adds for its plugin `offline`
GENERATED = ("study-keys.md", "commands.md", "sql.md", "python.md", "notebook.md")


def generated() -> dict[str, str | bytes]:
    """Every generated file of the site by its path: the pages, and the pictures of the notebook."""
    for folder in (ROOT, HERE):  # MkDocs loads this file alone, and forgets what it adds to the path while it is loaded
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    import commands
    import notebook
    import python_names
    import sql_catalog
    import study_keys

    page, pictures = notebook.page()
    pages: dict[str, str | bytes] = {
        "study-keys.md": study_keys.page(),
        "commands.md": commands.page(),
        "sql.md": sql_catalog.page(),
        "python.md": python_names.page(),
        "notebook.md": page,
    }
    return pages | pictures


def on_files(files: Files, config: Any) -> Files:
    """Add the generated files."""
    for path, content in generated().items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Replace each link that leaves the folder of documents by its text and the path of the file."""

    def replaced(link: re.Match[str]) -> str:
        text, target = link[1], link[2].partition("#")[0]
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page.file.src_uri), target))
        if "://" in target or not target or path.startswith("docs/"):
            return link[0]
        return text if text.strip("`") == path.rstrip("/") else f"{text} (`{path}`)"

    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)", replaced, markdown)


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Take the script that runs the search of a page without a server from the site, not from another host."""
    depth = posixpath.relpath("assets/worker.js", posixpath.dirname(page.url) or ".")
    return output.replace(f'src="{SHIM}"', f'src="{depth}"')


def on_post_template(output_content: str, template_name: str, config: Any) -> str:
    """The same for pages that are no documents, such as 404.html."""
    return output_content.replace(f'src="{SHIM}"', 'src="assets/worker.js"')
