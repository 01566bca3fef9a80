"""Models fetched onto this node: from Hugging Face, a URL or a manifest (SPEC-48678000, SPEC-dcaeaec4, SPEC-669176b2).

The way of a pull: `sources` reads what was asked for, `hub` or `manifest` turns it into a `Plan` of files with sizes
and hashes, `transfer` brings one file, resumed and checked, `pulls` gathers them in a hidden folder and moves them
into place when they are whole. Nothing outside `Origins` is ever connected to.
"""
