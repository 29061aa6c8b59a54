"""Training through Lightning: data, classifier, console and command line."""
