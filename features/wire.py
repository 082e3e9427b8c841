"""The wire decoders: every form of telemetry that comes in, made into `features.telemetry.Decoded`.

None of them fails, whatever the bytes, and each accounts for every reading: it is in a block, or in a `Rejected`.
"""

from __future__ import annotations

from features.arrow_blocks import decode_arrow, decode_blocks, holds_blocks
from features.json_lines import decode_jsonlines
from features.wide import decode_wide_table
from features.wide_csv import check_header, decode_wide_csv

__all__ = [
    "check_header",
    "decode_arrow",
    "decode_blocks",
    "decode_jsonlines",
    "decode_wide_csv",
    "decode_wide_table",
    "holds_blocks",
]
