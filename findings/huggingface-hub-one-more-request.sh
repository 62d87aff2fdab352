#!/bin/sh
# The first download of huggingface_hub also asks its server for a list of AI agents, so a mirror gets one more request.
#
# Expected: hf_hub_download of one file makes requests for that file alone: HEAD for its size and hash, GET for its
# content. Somebody who sets HF_ENDPOINT to a mirror of some models has a complete mirror.
# Found (huggingface_hub 2.4.0): it also makes the request GET HF_ENDPOINT/api/agent-harnesses, which lists by which
# environment variables programs can be recognised that start Python. The name of a program that is found goes into the
# header User-Agent. The list is kept in HF_HOME, so the second download makes requests for its file alone. A mirror
# that answers 404 does no harm. HF_HUB_DISABLE_TELEMETRY=1 prevents the request.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check huggingface_hub==2.4.0

cat > "$folder/look.py" <<'PYTHON'
import http.server
import json
import os
import sys
import threading

seen = []


class Mirror(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        seen.append(f"{self.command} {self.path}")
        found = "/resolve/" in self.path or (LIST is not None and self.path == "/api/agent-harnesses")
        content = (b"{}\n" if "/resolve/" in self.path else json.dumps(LIST).encode()) if found else b""
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", '"0123456789abcdef"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if body:
            self.wfile.write(content)


LIST = {"standardEnvVars": [], "harnesses": {}} if sys.argv[1] == "there" else None
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ |= {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": sys.argv[2], "NO_PROXY": "127.0.0.1"}
if sys.argv[1] == "unwanted":
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import huggingface_hub

others = {}
for name in ("one.json", "two.json"):
    seen.clear()
    huggingface_hub.hf_hub_download("somebody/model", name)
    print(f"huggingface_hub {huggingface_hub.__version__}, the list is {sys.argv[1]}, {name}:")
    print(*(f"    {request}" for request in sorted(seen)), sep="\n")
    others[name] = [request for request in seen if name not in request]
wanted = [] if sys.argv[1] == "unwanted" else ["GET /api/agent-harnesses"]
assert others == {"one.json": wanted, "two.json": []}, others
PYTHON
for list in missing there unwanted; do
    "$folder/venv/bin/python" "$folder/look.py" "$list" "$folder/$list"
done
