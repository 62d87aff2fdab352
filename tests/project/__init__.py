"""The project itself: layers, packaging, public names, docs, examples, benchmarks."""
