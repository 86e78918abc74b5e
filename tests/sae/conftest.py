"""One thread for all tests here: equal bits need one thread, and a second one does not speed up small steps."""

import torch

torch.set_num_threads(1)
