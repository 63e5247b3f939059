"""Selections as the files that trainers read: LLaMA-Factory, Axolotl, TRL, datasets."""
