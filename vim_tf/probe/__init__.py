"""Classes from VIM's features by one softmax layer (paper 4.2)."""
