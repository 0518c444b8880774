"""The private parts of timm that this package uses, so that a new version of it is checked in one place.

timm is pinned below 1.1, and `tests/models/test_internals.py` fails when one of these changes what it does.
"""

from timm.models._builder import _resolve_pretrained_source as resolve_pretrained_source
from timm.models._features import FeatureGetterNet, feature_take_indices

__all__ = ["FeatureGetterNet", "feature_take_indices", "resolve_pretrained_source"]
