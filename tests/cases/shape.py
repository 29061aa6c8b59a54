"""The same numbers in other places."""

import torch

from cases.table import *

CASES = [
    row("flatten", real(2, 3, 2), twin=torch.flatten, start_dim=1),
    row("flatten", real(2, 3, 2, 2), twin=torch.flatten, start_dim=1, end_dim=2),
    row("flatten", transposed(real(2, 3, 2)), twin=torch.flatten, note="transposed"),
    row("flatten", real(), twin=torch.flatten),
    row("flatten", real(0, 3, 2), twin=torch.flatten, start_dim=1, without=EMPTY),
]


MODULES = [
    module("Flatten", inputs=(real(2, 3, 4),)),
    module("Flatten", 0, 1, inputs=(real(2, 3, 4),)),
]
