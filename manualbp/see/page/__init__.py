"""The page: one file that steps backwards through a trained network, in any browser."""
