"""Supervised training: model, tokenizer, packing, trainer, checkpoint."""
