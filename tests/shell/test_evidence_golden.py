"""Golden digests: the tables and the chain of a fixed archive's report stay what they were before a change."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pyarrow.parquet as pq

from processor.audit.report.manifest import read
from processor.audit.report.tables import SCHEMAS
from tests.shell.test_replay import Archived

SOURCE = "28639def75f6ea8fb49f9807f92439b7332e9e7a5ab84e3a03aacd841ae5082c"
"""Of the archive. Where this fails the simulator has changed, and all that follows has to be noted anew."""

ROWS = {
    "steps": "69be45321cb8308d3582b653be4607cb23affc7b55d59d19260e31d754130a72",
    "transitions": "cb5c2d22bc3eb7be50a16f7b5c25b4f6b15728d11d81f4c8270f789da7812e60",
    "findings": "f97c9f3af379907fb8f114af4f173638fb05b0005798aab2afb2dc874547ccbb",
    "coverage": "13568edcc9e3b1328d54e88af63159f076e3245ecd6c5fdd73dd2fedafa50fcc",
    "links": "6b4bcc478c5d3f6ce5847f1c97576ef7c41a2f5ec36fb4192094663a51fb025d",
    "timeline": "51d91c242acead7cef92c92feabad9b4e4f99dd91d95b322819a41130436e8f4",
}
"""Of the rows of each table as JSON, over all partitions: another version of pyarrow may pack them otherwise."""

CHAINS = "3dbd82bc3cf34b62f01d20504083616dc881cb51e6a915aa0a65da216ab0f909"


def digest_of(parts: list[bytes]) -> str:
    return sha256(b"\n".join(parts)).hexdigest()


def test_the_evidence_of_a_fixed_archive_is_what_it_was(tmp_path: Path) -> None:
    archived = Archived(tmp_path)
    files = sorted(archived.source.rglob("*.jsonl"))
    assert digest_of([file.read_bytes() for file in files]) == SOURCE
    folder = tmp_path / "report"
    archived.audit(report=str(folder))
    assert digest_of([one.chain.encode() for one in read(folder).ranges]) == CHAINS
    for table in SCHEMAS:
        rows = [
            json.dumps(row, sort_keys=True).encode()
            for file in sorted((folder / "tables" / table).glob("*.parquet"))
            for row in pq.read_table(file).to_pylist()
        ]
        assert rows, table
        assert digest_of(rows) == ROWS[table], table
