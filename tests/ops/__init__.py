"""The ops: values, gradients of both orders, errors, and PyTorch's answers."""
