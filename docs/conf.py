"""Sphinx settings of the book; `make book` lays the sources out and calls Sphinx."""

project = "vsmd"
author = "the vsmd project"
html_title = "vsmd"
extensions = ["myst_nb", "sphinx.ext.autodoc", "repro.book.mathml", "repro.book.reference"]

html_theme = "furo"  # readable on a phone; fonts and scripts of its own or none
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_math_renderer = "mathml"

nb_execution_mode = "off"  # chapters are the executed notebooks of the report
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # nothing from elsewhere: widgets are for a live notebook
nb_render_markdown_format = "myst"
myst_enable_extensions = ["dollarmath", "amsmath", "deflist", "colon_fence"]
myst_heading_anchors = 3

autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 88
