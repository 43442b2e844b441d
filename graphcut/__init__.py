"""Split a CNN that is too large for an edge accelerator into segments that fit.

The public API: ``load`` a model, ``analyse`` where it can be cut, ``plan`` the cuts, ``split`` it into a folder,
``verify`` that folder (graphcut.api). Records are in graphcut.records, errors in graphcut.errors.
"""

from graphcut.api import analyse, load, plan, split, verify
from graphcut.errors import GraphcutError
from graphcut.records import Preprocessing

__all__ = ["GraphcutError", "Preprocessing", "analyse", "load", "plan", "split", "verify"]
