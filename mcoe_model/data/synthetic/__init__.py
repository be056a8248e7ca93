"""Synthetic eyes in SEE's layout: an own stand-in for data that need an application to their authors.

Accuracy on synthetic data says nothing about SEE.
"""

from mcoe_model.data.synthetic.settings import SyntheticSettings
from mcoe_model.data.synthetic.writer import write_see

__all__ = ["SyntheticSettings", "write_see"]
