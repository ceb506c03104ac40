"""ViT-VQGAN and VIM (Yu et al., ICLR 2022) in TensorFlow and Keras."""
