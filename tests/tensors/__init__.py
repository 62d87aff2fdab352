"""The class Tensor, its creation and its comparison."""
