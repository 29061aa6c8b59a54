"""How Sphinx builds these pages: sphinx-build -W docs docs/_build"""

from datetime import date

import manualbp

project = "manualbp"
author = "The manualbp developers"
copyright = f"{date.today().year}, {author}"
release = version = manualbp.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"manualbp {release}"

autodoc_member_order = "bysource"
myst_heading_anchors = 3
# Of links to files outside of this folder; a test looks whether each of them is there.
suppress_warnings = ["myst.xref_missing"]
