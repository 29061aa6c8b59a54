"""Pictures of what is inside a backward pass, with matplotlib, which the extra ``viz`` installs.

Each function draws one picture into ``ax``, or else into a figure of its own that is as wide as a
README, and returns the ``Axes``; none calls ``show``. ``save`` writes a picture to a file.

- ``neuron(trace, unit)``: weights of a neuron of the first layer, and where each class pulls them
- ``paths(trace.paths(…))``: the products over all paths, which add up to ∂C/∂a
- ``vanishing(trace.vanishing())``: ‖δ‖ from the cost back, and what W and σ′ each do to it
- ``nudge(trace, name, *index, by=…)``: ΔC as the gradient predicts it, and as it is
- ``cosines(grads, labels)``: whose gradients agree, of ``manualbp.per_example_grads``
- ``deltas(run)``: ‖δ‖ of each layer through training

The symbols have the document's colours: C red, w blue, b pink, z green, y gold. Nothing is told by
colour alone: what is negative is hollow, or bears a minus, and lines have marks and names.
"""

from manualbp.see.plots.bars import paths, vanishing
from manualbp.see.plots.curves import deltas, nudge
from manualbp.see.plots.squares import cosines, neuron
from manualbp.see.plots.style import save

__all__ = ["cosines", "deltas", "neuron", "nudge", "paths", "save", "vanishing"]
