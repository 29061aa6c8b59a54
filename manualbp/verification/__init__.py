"""Is this backward right? For a formula, a function, a module, a whole model."""
