"""The tests: one file a module, plus the architecture, packaging and public-API tests."""
