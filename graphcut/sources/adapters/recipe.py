"""A recipe of ``models/``, by name or by its ``.toml`` file."""

from __future__ import annotations

from typing import Final

from graphcut import recipes
from graphcut.progress import Report
from graphcut.sources import keras
from graphcut.sources.adapter import Export, Request


class RecipeSource:
    """The source "recipe"; its input has the shape that the recipe gives."""

    kind: Final = "recipe"
    what: Final = "a recipe's name (resnet101)"

    def matches(self, source: str) -> bool:
        """A recipe's name or a name that ends in ``.toml``."""
        return source.endswith(recipes.SUFFIX) or source in recipes.names()

    def to_onnx(self, request: Request, report: Report) -> Export:
        """Export the recipe's model; ``sha256`` is that of the export."""
        recipe = recipes.find(request.source)
        path = keras.cached_export(recipe, request.cache, report)
        return Export(path=path, name=recipe.name, input_shapes=request.input_shapes, channels_last=True)


ADAPTER = RecipeSource()
