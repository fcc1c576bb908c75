"""Build the documentation site from the guides and the docstrings.

Usage:
    python docs/build_site.py [OUTPUT]

The site mirrors the repository: README.md becomes OUTPUT/index.html, docs/guide/server.md becomes
OUTPUT/docs/server.html, and the API reference is OUTPUT/api/. The build fails if a public name has
no docstring, if a docstring refers to a name that does not exist, or if a relative link is broken.
"""

from __future__ import annotations

import html
import importlib
import os
import re
import shutil
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urldefrag

from markdown_it import MarkdownIt
from markdown_it.token import Token
from public_names import (
    PUBLIC_MODULES,
    broken_references,
    constant_documentation,
    is_constant,
    public_names,
    undocumented_names,
)

ROOT = Path(__file__).resolve().parents[1]
API_INDEX = "api/cnnkit.html"

STYLE = """
body { font: 16px/1.55 system-ui, sans-serif; margin: 0 auto; max-width: 56rem; padding: 1rem; }
nav { border-bottom: 1px solid #ccc; padding-bottom: .5rem; }
nav a { margin-right: .8rem; white-space: nowrap; }
code, pre { background: #f4f4f4; font-size: .9em; }
pre { overflow-x: auto; padding: .7rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
td, th { border: 1px solid #ccc; padding: .3rem .6rem; text-align: left; vertical-align: top; }
img { max-width: 100%; }
"""


def markdown_pages(root: Path = ROOT) -> list[Path]:
    """Return the Markdown files of the site."""
    return [
        *sorted(root.glob("*.md")),
        *sorted(root.glob("client/*.md")),
        *sorted(root.glob("serving/*.md")),
        *sorted(root.glob("cluster/*.md")),
        *sorted(root.glob("docs/**/*.md")),
    ]


def broken_links(root: Path = ROOT) -> list[str]:
    """Return the relative links of the Markdown files that point to no file or heading."""
    broken = []
    for page in markdown_pages(root):
        tokens = _parse(page)
        for line, target in _links(tokens):
            if not _is_relative(target):
                continue
            path, anchor = urldefrag(unquote(target))
            file = (page.parent / path).resolve() if path else page
            known = file.exists() and file.is_relative_to(root)
            if known and anchor:
                known = file.suffix == ".md" and anchor in _heading_ids(_parse(file))
            if not known:
                broken.append(f"{page.relative_to(root)}:{line}: {target}")
    return broken


def broken_site_links(site: Path) -> list[str]:
    """Return the relative links of the HTML files that point to no file or element."""
    pages = {path: _HtmlPage(path) for path in sorted(site.rglob("*.html"))}
    broken = []
    for path, page in pages.items():
        for target in page.targets:
            if not _is_relative(target):
                continue
            file_name, anchor = urldefrag(unquote(target))
            file = Path(os.path.normpath(path.parent / file_name)) if file_name else path
            known = file.exists() and (not anchor or file not in pages or anchor in pages[file].ids)
            if not known:
                broken.append(f"{path.relative_to(site)}: {target}")
    return broken


def build_guides(site: Path) -> None:
    """Write one HTML page for each Markdown file, and copy the files that the pages link to."""
    pages = markdown_pages()
    for page in pages:
        output = site / _html_name(page.relative_to(ROOT))
        output.parent.mkdir(parents=True, exist_ok=True)
        tokens = _parse(page)
        for _, target in _links(tokens):
            path = urldefrag(unquote(target)).url
            file = (page.parent / path).resolve()
            if _is_relative(target) and path and file.is_file() and file not in pages:
                copy = site / file.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
        output.write_text(_render(page, tokens, pages), encoding="utf-8")


def build_api(site: Path) -> None:
    """Write the API reference of the public modules with pdoc."""
    import pdoc.doc
    import pdoc.render

    version = importlib.import_module("cnnkit").__version__
    pdoc.render.configure(
        docformat="google",
        include_undocumented=False,
        footer_text=f"cnnkit {version}",
        template_directory=ROOT / "docs" / "templates",
    )
    modules = {}
    for module_name in PUBLIC_MODULES:
        module = importlib.import_module(module_name)
        names = public_names(module)
        for name in names:
            # pdoc reads names from the module's dictionary, which lazy names are missing from.
            setattr(module, name, getattr(module, name))
        module.__all__ = names
        document = pdoc.doc.Module(module)
        for name in names:
            if is_constant(getattr(module, name)):
                member = document.members[name]
                member.docstring = constant_documentation(module, name)
                if len(repr(member.default_value)) > 200:
                    member.default_value = pdoc.doc.empty
        modules[module_name] = document
    modules["cnnkit"].submodules = [modules[name] for name in PUBLIC_MODULES if name != "cnnkit"]
    for module_name, document in modules.items():
        output = (site / "api").joinpath(*module_name.split(".")).with_suffix(".html")
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(pdoc.render.html_module(document, modules), encoding="utf-8")
    search_index = pdoc.render.search_index(modules)
    (site / "api" / "search.js").write_text(search_index, encoding="utf-8")


def build(site: Path) -> list[str]:
    """Build the site in the folder `site` and return the problems found."""
    problems = [f"undocumented public name: {name}" for name in undocumented_names()]
    problems += [f"reference to an unknown name: {text}" for text in broken_references()]
    problems += [f"broken link: {text}" for text in broken_links()]
    if site.exists() and not (site / API_INDEX).is_file():
        problems.append(f"OUTPUT must be a new folder or an earlier build, received {site}")
    if problems:
        return problems
    shutil.rmtree(site, ignore_errors=True)
    build_guides(site)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        build_api(site)
    problems = [f"pdoc: {warning.message}" for warning in caught if _is_from_pdoc(warning)]
    return problems + [f"broken link in the site: {text}" for text in broken_site_links(site)]


def main(arguments: list[str]) -> int:
    """Build the site, print the problems and return the exit code."""
    site = Path(arguments[0]) if arguments else ROOT / "build" / "docs"
    problems = build(site)
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        print(f"The documentation has {len(problems)} problems.", file=sys.stderr)
        return 1
    print(f"Built {site / 'index.html'}.")
    return 0


class _HtmlPage(HTMLParser):
    """The link targets and the element ids of an HTML file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.targets: set[str] = set()
        self.ids: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect the attributes of one element."""
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.targets.add(value)
            elif name == "id" and value:
                self.ids.add(value)


def _parse(page: Path) -> list[Token]:
    parser = MarkdownIt("commonmark").enable("table")
    return parser.parse(page.read_text(encoding="utf-8"))


def _links(tokens: list[Token]) -> Iterator[tuple[int, str]]:
    """Yield the line and the target of each link and image."""
    for token in tokens:
        line = token.map[0] + 1 if token.map else 1
        for child in token.children or ():
            target = child.attrGet("href") or child.attrGet("src")
            if target:
                yield line, str(target)


def _is_relative(target: str) -> bool:
    return not re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:|//", target)


def _heading_ids(tokens: list[Token]) -> list[str]:
    """Return the ids of the headings, made from their text in the way of GitHub."""
    seen: Counter[str] = Counter()
    ids = []
    for token, following in zip(tokens, tokens[1:], strict=False):
        if token.type != "heading_open":
            continue
        text = "".join(
            child.content
            for child in following.children or ()
            if child.type in ("text", "code_inline")
        )
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        ids.append(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return ids


def _html_name(page: Path) -> PurePosixPath:
    name = PurePosixPath(page.as_posix())
    return PurePosixPath("index.html") if str(name) == "README.md" else name.with_suffix(".html")


def _relative(target: PurePosixPath, page: PurePosixPath) -> str:
    return PurePosixPath(os.path.relpath(target, page.parent)).as_posix()


def _render(page: Path, tokens: list[Token], pages: list[Path]) -> str:
    """Return the HTML of a page: navigation and text, with links to pages of the site."""
    here = _html_name(page.relative_to(ROOT))
    ids = iter(_heading_ids(tokens))
    for token in tokens:
        if token.type == "heading_open":
            token.attrSet("id", next(ids))
        for child in token.children or ():
            target = child.attrGet("href")
            if target and _is_relative(str(target)):
                path, anchor = urldefrag(str(target))
                file = (page.parent / unquote(path)).resolve()
                if path and file in pages:
                    path = _relative(_html_name(file.relative_to(ROOT)), here)
                    child.attrSet("href", f"{path}#{anchor}" if anchor else path)
    parser = MarkdownIt("commonmark").enable("table")
    body = parser.renderer.render(tokens, parser.options, {})
    menu = [("API reference", PurePosixPath(API_INDEX))]
    menu += [(_title(other), _html_name(other.relative_to(ROOT))) for other in pages]
    items = "\n".join(
        f'<a href="{_relative(name, here)}">{html.escape(title)}</a>' for title, name in menu
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(_title(page))}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<nav>\n{items}\n</nav>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )


def _title(page: Path) -> str:
    """Return the text of the first heading, up to a colon."""
    tokens = _parse(page)
    for token, following in zip(tokens, tokens[1:], strict=False):
        if token.type == "heading_open":
            return following.content.partition(":")[0].replace("`", "")
    return page.stem


def _is_from_pdoc(warning: warnings.WarningMessage) -> bool:
    return "pdoc" in Path(warning.filename).parts


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
