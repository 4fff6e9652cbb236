"""For mkdocs: what the pages name outside docs/ is shown on a page of the site, or named only."""

import re


def on_page_markdown(markdown: str, **_: object) -> str:
    markdown = re.sub(r"\]\(\.\./examples/\w+\.py\)", "](examples.md)", markdown)
    return re.sub(r"\[([^\]]+)\]\(\.\./[^)]*\)", r"\1", markdown)
