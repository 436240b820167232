"""The evidence of a replay: tables (Parquet), a manifest that names every byte of them, and a page to read.

`tables` is written by the workers of a replay, one set per partition range. `manifest` puts the sets together, signs
them with one root digest and checks them again. `page` draws report.html from a finished folder.
"""
