"""The evidence of a replay: tables (Parquet), a manifest that names every byte of them, and a page to read.

`tables` is written by the workers of a replay, one set per partition range. `manifest` joins the sets under one root
digest. `page` renders report.html from a finished folder.
"""
