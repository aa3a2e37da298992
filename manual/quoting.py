"""Fills in quotations from README.md, so that the site's first pages and the repository's first page share one text.

The text between `<!-- README: <title of a section> -->` and `<!-- end -->` is that section; *introduction* is everything before
the first drawing. Links are adapted, since the pages are in docs/.
"""

import re

_QUOTE = re.compile(r"(<!-- README: (.+?) -->\n).*?(?=<!-- end -->)", re.DOTALL)


def quoted(page: str, readme: str) -> str:
    """The page with its quotations updated from README.md."""

    def quote(found: re.Match[str]) -> str:
        text = readme.partition("\n")[2].partition("```")[0]
        if found[2] != "introduction":
            _, heading, rest = readme.partition(f"## {found[2]}\n")
            if not heading:
                raise ValueError(f"README.md has no section '{found[2]}'")
            text = heading + rest.partition("\n## ")[0]
        return f"{found[1]}\n{text.strip().replace('](docs/', '](')}\n\n"

    return _QUOTE.sub(quote, page)
