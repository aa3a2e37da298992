"""Pages that quote README.md, so that the site's first pages and the repository's first page have one text.

What stands between `<!-- README: <title of a section> -->` and `<!-- end -->` is that section; *introduction* is what stands
before the first drawing. The links are turned, since the pages lie in docs/.
"""

import re

_QUOTE = re.compile(r"(<!-- README: (.+?) -->\n).*?(?=<!-- end -->)", re.DOTALL)


def quoted(page: str, readme: str) -> str:
    """The page with its quotations as README.md now says them."""

    def quote(found: re.Match[str]) -> str:
        text = _introduction(readme) if found[2] == "introduction" else _section(readme, found[2])
        return f"{found[1]}\n{text.strip().replace('](docs/', '](')}\n\n"

    return _QUOTE.sub(quote, page)


def _introduction(readme: str) -> str:
    return readme.partition("\n")[2].partition("```")[0]


def _section(readme: str, title: str) -> str:
    _, heading, rest = readme.partition(f"## {title}\n")
    if not heading:
        raise ValueError(f"README.md has no section '{title}'")
    return heading + rest.partition("\n## ")[0]
