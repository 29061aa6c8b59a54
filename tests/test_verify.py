"""``manualbp.verify`` is tried on the catalogue, on models with one wrong rule, on bad input."""

import copy
import json
import re

import pytest
import torch
from torch import nn
from torch.autograd import Function

import manualbp
from manualbp.verification import Report
from manualbp.verification.catalogue import RIGHT, WRONG
