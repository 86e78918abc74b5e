"""All tests of this folder use one thread: more threads can change bits, and do not speed up small steps."""

import torch

torch.set_num_threads(1)
