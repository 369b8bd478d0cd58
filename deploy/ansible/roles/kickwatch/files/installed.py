"""Print as JSON which kickwatch is installed in the virtual environment that runs this; fail if none is complete."""

import json
from importlib.metadata import distribution

kickwatch = distribution("kickwatch")
origin = json.loads(kickwatch.read_text("direct_url.json") or "{}")  # PEP 610
record = next(file for file in kickwatch.files or () if file.name == "RECORD")  # pip writes it last
print(
    json.dumps(
        {
            "version": kickwatch.version,
            "wheel_sha256": origin.get("archive_info", {}).get("hash", "").removeprefix("sha256="),
            "installed_unix_s": int(record.locate().stat().st_mtime),
        }
    )
)
