"""Web archives, and the command on them, for the tests of the kind commoncrawl."""

import io
import json
from collections import Counter
from pathlib import Path

from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from llama_jax.clean.items import open_raw
from llama_jax.cli.clean import run_clean
from llama_jax.cli.clean_options import CleanOptions


def page(*paragraphs: str, head: str = "") -> str:
    """An HTML page with menus around its paragraphs."""
    menu = "".join(f"<li><a href='/{name}'>{name}</a></li>" for name in ("Home", "Products", "Log in", "Imprint"))
    body = "\n".join(f"<p>{paragraph}</p>" for paragraph in paragraphs)
    return (f"<!DOCTYPE html><html><head>{head}<title>A title</title><script>var hidden = 1;</script></head><body>"
            f"<nav><ul>{menu}</ul></nav><article>{body}</article><footer><p>Cookie settings</p></footer></body></html>")


def web_archive(*bodies: str | bytes, content_type: str = "text/html", kind: str = "response", status: str = "200 OK",
                compressed: bool = True) -> bytes:
    """A file in the format WARC with a record per body: responses, or kind="conversion" for WET."""
    data = io.BytesIO()
    writer = WARCWriter(data, gzip=compressed)
    for number, body in enumerate(bodies):
        body = body.encode() if isinstance(body, str) else body
        http = StatusAndHeaders(status, [("Content-Type", content_type)], protocol="HTTP/1.1") if kind == "response" else None
        writer.write_record(writer.create_warc_record(
            f"http://example.com/{number}", kind, payload=io.BytesIO(body), length=len(body), http_headers=http,
            warc_headers_dict={"WARC-Date": "2019-08-17T20:00:00Z", "WARC-Record-ID": f"<urn:uuid:{number}>"}))
    return data.getvalue()


def clean_pages(folder: Path, output: Path, **options) -> list[dict]:
    """The documents that the command makes of the web archives in a folder."""
    run_clean(CleanOptions(source="commoncrawl", input=(str(folder),), output=str(output), **{"workers": 1, **options}))
    return read_output(output)


def read_output(output: Path) -> list[dict]:
    """The documents of an output folder, in the order of their files."""
    documents = []
    for file in sorted(output.glob("*.jsonl.zst")):
        with open_raw(file) as stream:
            documents += [json.loads(line) for line in stream]
    return documents


def reasons(output: Path) -> Counter:
    """Reason to drop -> documents, over all steps."""
    total: Counter = Counter()
    for step in json.loads((output / "report.json").read_text()):
        total.update({reason: documents for reason, (documents, _) in step["dropped"].items()})
    return total


def damages(output: Path) -> dict[str, int]:
    """What the report says of damaged files."""
    return {text: number for step in json.loads((output / "report.json").read_text()) for text, number in step["damaged"].items()}
