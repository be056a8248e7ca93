"""The models, what they see and how they learn.

Importing this package, `protocol`, `update`, `model_file` and `router_statistics` needs NumPy only: the server uses
them and must never load torch.
"""

__version__ = "0.1.0"
