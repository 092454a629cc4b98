"""What the box meets outside: Git over https, and over http an API of tunnels, a registry and a base.

    outside.py DIR REPOSITORIES

In DIR lie `server.pem`, certificate and key of the first, and the secrets that are right: `password`
(of the user someone), `token` and `cloudflare`. What was asked stands in DIR/log, a line each: which of
them was shown, the status and the path; a value is in no line. `tags` holds what the registry has of
every image, and `base.yaml` is a file for whoever asks.
"""

import base64
import json
import os
import pathlib
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

here, repositories = pathlib.Path(sys.argv[1]), sys.argv[2]


class Server(BaseHTTPRequestHandler):
    def answer(self, who, status, body=b"", headers=()):
        with open(here / "log", "a") as log:
            log.write(f"{who} {status} {self.path}\n")
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def shown(self):
        """Which secret it is that the request has on it."""
        header = self.headers.get("Authorization")
        if header is None:
            return "nothing"
        right = {name: (here / name).read_text() for name in ("password", "token", "cloudflare")}
        if header == "Basic " + base64.b64encode(f"someone:{right['password']}".encode()).decode():
            return "password"
        return {f"Bearer {right[name]}": name for name in ("token", "cloudflare")}.get(header, "another")

    def log_message(self, *_):
        pass


class Git(Server):
    def do_GET(self):
        who = self.shown()
        if who not in ("password", "token"):
            return self.answer(who, 401, headers=[("WWW-Authenticate", 'Basic realm="Git"')])
        path, _, query = self.path.partition("?")
        env = {name: os.environ[name] for name in ("PATH", "GIT_CONFIG_GLOBAL")} | {
            "GIT_PROJECT_ROOT": repositories,
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        done = subprocess.run(["git", "http-backend"], input=self.body(), env=env, capture_output=True)
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.answer(who, int(headers.pop("Status", "200").split()[0]), body, headers.items())

    do_POST = do_GET

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body


class Plain(Server):
    def do_GET(self):
        who, kind = self.shown(), [("Content-Type", "application/json")]
        if self.path.startswith("/client/v4/"):
            # Some quote what they were shown.
            header = self.headers.get("Authorization", "")
            fault = {"code": 1000, "message": f"Invalid API Token: {header}"}
            body = {"success": False, "errors": [fault], "messages": [], "result": None}
            self.answer(who, 401, json.dumps(body).encode(), kind)
        elif self.path.startswith("/v2/") and "/tags/list" in self.path:
            name = self.path.removeprefix("/v2/").partition("/tags/list")[0]
            body = {"name": name, "tags": (here / "tags").read_text().split()}
            self.answer(who, 200, json.dumps(body).encode(), kind)
        elif self.path == "/base.yaml":
            self.answer(who, 200, (here / "base.yaml").read_bytes())
        else:
            self.answer(who, 200 if self.path == "/v2/" else 404)


git = ThreadingHTTPServer(("127.0.0.1", 8443), Git)
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(here / "server.pem")
git.socket = tls.wrap_socket(git.socket, server_side=True, do_handshake_on_connect=False)
threading.Thread(target=git.serve_forever, daemon=True).start()
ThreadingHTTPServer(("127.0.0.1", 8080), Plain).serve_forever()
