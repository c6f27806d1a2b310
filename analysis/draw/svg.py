"""Puts figures into the page as SVG elements, where a click can hide an arm; an image has no parts to reach."""

import hashlib
import re

from matplotlib.figure import Figure

from analysis.draw.figure import as_bytes

COMMAND = re.compile(r"\s*\b([A-Z])\s+(?=[-\d])")  # of a path, with the spaces around it, which it needs none of
# markers of one line, each with the same style
SAME_STYLE = re.compile(r'(?:<use [^>]*? style="([^"]*)"/>\s*)(?:<use [^>]*? style="\1"/>\s*)+')
PANEL = re.compile(r'<g id="(panel|steps):[^"]*"')
ARM = re.compile(r'<g id="arm:([^"]*?)::(line|band|key):[^"]*"')


def inline_svg(figure: Figure, prefix: str, alt: str) -> str:
    """Returns the figure as an `<svg>` element. `prefix` makes its ids its own, since figures often share some.

    What belongs to an arm (line, band, entry of the legend) has its name in `data-arm`; our panels are of class
    "panel", their axes of steps "steps". matplotlib escapes names.
    """
    # letters as text: a path for each would be most of the page
    svg = as_bytes(figure, "svg", letters="none").decode()
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.S)
    # a tenth of a point is below what can be seen; digits, names and spaces would be half the page
    svg = re.sub(r' (?:d|x|y|x1|x2|y1|y2)="[^"]*"', lambda found: re.sub(r"(\.\d)\d+", r"\1", found[0]), svg)
    svg = re.sub(r' d="[^"]*"', lambda found: COMMAND.sub(r"\1", found[0]), svg)
    svg = re.sub(r"\n\s+", "\n", svg)
    svg = SAME_STYLE.sub(in_one_group, svg)
    svg = ARM.sub(r'<g class="\2" data-arm="\1"', svg)
    svg = PANEL.sub(r'<g class="\1"', svg)
    svg = re.sub(r' style="[^"]*"', lambda found: re.sub(r"([:;]) ", r"\1", found[0]), svg)
    svg = svg.replace(' xlink:href="', ' href="')
    own = hashlib.sha256(prefix.encode()).hexdigest()[:6]  # short, since a page has ids in twenty thousand places
    names = {name: f"i{own}-{n}" for n, name in enumerate(dict.fromkeys(re.findall(r'\bid="([^"]*)"', svg)))}
    svg = re.sub(r'(\bid="|href="#|url\(#)([^")]*)', lambda found: found[1] + names[found[2]], svg)
    head = re.sub(r' (?:width|height|version)="[^"]*"', "", svg[: svg.index(">")])
    return f'{head} role="img" aria-label="{alt}"{svg[svg.index(">") :].strip()}'


def in_one_group(uses: re.Match[str]) -> str:
    """Puts elements of one style into a group that has it."""
    style = f'style="{uses[1]}"'
    return f"<g {style}>{uses[0].replace(f' {style}', '')}</g>"
