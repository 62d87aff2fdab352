"""Tests of the types that type checkers find in programs that use tensorlite."""
