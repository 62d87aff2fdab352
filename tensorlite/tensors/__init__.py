"""The class Tensor: its methods, conversion, creation and comparison."""
