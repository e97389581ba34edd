"""A Sphinx extension: formulas as MathML, which browsers draw themselves; no script and no font is loaded."""

from __future__ import annotations

import re
from typing import Any

# What latex2mathml does not know, in terms of what it does.
_SPELT = {
    r"\\tfrac\b": r"\\frac",
    r"\\dfrac\b": r"\\frac",
    r"\\operatorname\*": r"\\operatorname",
    r"\\boldsymbol\b": r"\\mathbf",
    r"\\[bB]igg?[lrm]?\b": "",
}


def mathml(latex: str, display: str = "inline") -> str:
    """`latex` as a MathML element. Raises ValueError naming the formula where it cannot be read."""
    from latex2mathml.converter import convert

    text = latex.strip()
    for pattern, plain in _SPELT.items():
        text = re.sub(pattern, plain, text)
    if display == "block" and r"\\" in text and r"\begin" not in text:
        text = rf"\begin{{aligned}}{text}\end{{aligned}}"
    try:
        return str(convert(text, display=display))
    except Exception as error:
        raise ValueError(f"formula {latex!r}: {type(error).__name__} {error}") from None


def setup(app: Any) -> dict[str, Any]:
    """What Sphinx calls: the renderer `mathml` for the builder html."""
    from docutils import nodes
    from sphinx.util import logging

    logger = logging.getLogger(__name__)

    def drawn(node: Any, display: str) -> str:
        try:
            return mathml(node.astext(), display)
        except ValueError as error:
            logger.warning(str(error), location=node)
            return f"<code>{node.astext()}</code>"

    def inline(translator: Any, node: Any) -> None:
        translator.body.append(drawn(node, "inline"))
        raise nodes.SkipNode

    def block(translator: Any, node: Any) -> None:
        translator.body.append(f'<div class="math">{drawn(node, "block")}</div>')
        raise nodes.SkipNode

    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
