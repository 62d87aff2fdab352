"""The tests: a folder for each package, and tests/project for the project itself."""
