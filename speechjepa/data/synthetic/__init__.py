"""Synthetic speech in many languages: espeak-ng's voices, CLDR's words, no download."""
