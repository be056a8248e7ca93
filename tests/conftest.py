"""For every test: one thread for torch, as in every worker of the product. More only fight over the processors."""

import torch

from mcoe_model.workers import one_thread

one_thread()
assert torch.get_num_threads() == 1
