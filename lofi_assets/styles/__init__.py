"""The vocabulary of prompts, the style presets, and the text of a prompt (`config/styles/`)."""
