"""Stage 1: the ViT-VQGAN tokenizer, its discriminators and its losses."""
