import re
from pathlib import Path
from typing import Final

_TORN: Final = re.compile(r"computed checksum (\d+) does not match stored checksum (\d+) in block at location (\d+)")


def is_torn(path: Path, said: str) -> bool:
    return bool(_TORN.search(said)) and path.with_name(f"{path.name}.wal").exists()
