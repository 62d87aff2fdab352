"""The class Tensor: methods, conversion, creation, comparison."""
