"""The documentation site, built by `make docs`: Markdown pages, nothing loaded from outside."""

from finetune.version import __version__

project = "finetune"
author = "the finetune authors"
release = __version__
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
html_theme = "furo"
html_title = f"finetune {__version__}"
html_show_copyright = False
myst_heading_anchors = 4  # page.md#heading is a link that is checked
nitpicky = True
smartquotes = False  # two dashes stay two dashes: --data
