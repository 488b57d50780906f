"""An SVG file of matplotlib as part of a page: the page's fonts and colours, no style of its own.

A strict content policy allows no `style` attribute, so each becomes plain attributes, which the
style sheet of the page can replace: that is how a chart turns dark.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

__all__ = ["inline_svg"]

_SVG = "http://www.w3.org/2000/svg"
_LINK = "http://www.w3.org/1999/xlink"
_USED = re.compile(r"#([\w.-]+)")
_FONT_SIZE = re.compile(r"([\d.]+)px")
_FONTS = ("font", "font-family", "font-style", "font-weight", "font-stretch")  # the page's


def inline_svg(svg: bytes, *, name: str, label: str) -> str:
    """Give a chart as an element of a page.

    Args:
        svg: A file that matplotlib wrote.
        name: Of the chart, unlike that of any other in the page: a word.
        label: What it shows, for who does not see it.
    """
    root = ElementTree.fromstring(svg)
    _drop(root, ("metadata", "style"))
    used = _names_in_use(root)
    for element in root.iter():
        _make_plain(element)
        _rename(element, name, used)
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    root.attrib |= {
        "class": "chart",
        "role": "img",
        "aria-label": label,
        "stroke-linejoin": "round",
        "stroke-linecap": "butt",
    }
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _LINK)
    return ElementTree.tostring(root, encoding="unicode")


def _drop(root: ElementTree.Element, names: tuple[str, ...]) -> None:
    """Remove what a page must not take over."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in names:
                parent.remove(child)


def _names_in_use(root: ElementTree.Element) -> set[str]:
    """Give the names of elements that something in the chart refers to."""
    values = [value for element in root.iter() for value in element.attrib.values()]
    referred = {name for value in values for name in _USED.findall(value)}
    return referred & {element.get("id", "") for element in root.iter()}


def _make_plain(element: ElementTree.Element) -> None:
    """Turn the style of an element into attributes; its font is the page's."""
    style = element.attrib.pop("style", "")
    for rule in filter(None, (part.strip() for part in style.split(";"))):
        key, _, value = (part.strip() for part in rule.partition(":"))
        size = _FONT_SIZE.search(value) if key in ("font", "font-size") else None
        if size:
            element.set("font-size", size[1])
        elif key not in _FONTS:
            element.set(key, value)


def _rename(element: ElementTree.Element, name: str, used: set[str]) -> None:
    """Keep the names that are used, as those of this chart alone."""
    own = element.attrib.pop("id", None)
    for key, value in list(element.attrib.items()):
        element.set(key, _prefixed(value, name, used))
    if own in used:
        element.set("id", f"{name}-{own}")


def _prefixed(value: str, name: str, used: set[str]) -> str:
    """Let a reference lead to the renamed element; a colour such as #1b2430 stays."""
    return _USED.sub(lambda hit: f"#{name}-{hit[1]}" if hit[1] in used else hit[0], value)
