"""What a browser would act on in a page."""

from html.parser import HTMLParser

__all__ = ["Page"]


class Page(HTMLParser):
    """The elements of a page.

    Attributes:
        tags: Each with its attributes, in order.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def having(self, *names: str) -> list[str | None]:
        """The values of attributes with one of these names."""
        return [values[name] for _, values in self.tags for name in names if name in values]
