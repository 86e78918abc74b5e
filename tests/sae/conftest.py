"""One thread for the whole room: equal bits are promised at one thread, and small steps only wait for a second."""

import torch

torch.set_num_threads(1)
