"""Values to graphs and blocks, and back: plain data as a typed tree, the rest as pickles without their bytes.

``graph`` specifies the format.
"""

from __future__ import annotations

from ckptstore.serializers._allowlist import Allowlist, names_to_trust
from ckptstore.serializers._check import Ref
from ckptstore.serializers._leaves import Leaf
from ckptstore.serializers._outline import LeafSpec, Outline, Spot
from ckptstore.serializers._paths import step_text
from ckptstore.serializers._views import View, views_of
from ckptstore.serializers.dump import DumpedField, dump
from ckptstore.serializers.memory import Block
from ckptstore.serializers.registry import CustomType, Registry
from ckptstore.serializers.restore import RestorePlan

__all__ = [
    "Allowlist",
    "Block",
    "CustomType",
    "DumpedField",
    "Leaf",
    "LeafSpec",
    "Outline",
    "Ref",
    "Registry",
    "RestorePlan",
    "Spot",
    "View",
    "dump",
    "names_to_trust",
    "step_text",
    "views_of",
]
