"""Your own image: a page on which a saved model says what it makes of a picture, ``python -m helpers.app``.

The page is the notebook ``07_your_own_image``: `show_page` displays it in JupyterLab, and Voilà serves it without code.
`helpers.app.reader` finds out what a model says, `helpers.app.rendering` writes it as HTML, and `helpers.app.page` is
what a person sees and clicks on.
"""

from helpers.app.page import show_page
from helpers.app.reader import list_models

__all__ = ["list_models", "show_page"]
