"""A trained model for other programs: Hugging Face folders and GGUF files; and such a folder as a start."""
