"""What the stores of this folder share: one HTTP server that speaks a store's published API, and a second one, on another
port, through which a test prepares it, breaks it and asks what it received."""

import argparse
import datetime
import ipaddress
import json
import os
import ssl
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MAX_REQUEST_BYTES = 1 << 20


class Request:
    """One request as a store sees it."""

    def __init__(self, handler):
        url = urllib.parse.urlsplit(handler.path)
        self.method = handler.command
        self.raw_path = url.path
        self.path = urllib.parse.unquote(url.path)
        self.query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        self.headers = handler.headers
        length = int(handler.headers.get("content-length") or 0)
        if length > MAX_REQUEST_BYTES:
            raise Refused(413, {"error": "the request is too large"})
        self.body = handler.rfile.read(length)

    def json(self):
        try:
            value = json.loads(self.body or b"{}")
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise Refused(400, {"error": "the body is not a JSON object"})
        return value

    def form(self):
        if "application/x-www-form-urlencoded" not in (self.headers.get("content-type") or ""):
            raise Refused(400, {"error": "invalid_request", "error_description": "the body is not a form"})
        return dict(urllib.parse.parse_qsl(self.body.decode()))

    def bearer(self):
        kind, _, token = (self.headers.get("authorization") or "").partition(" ")
        return token if kind.lower() == "bearer" else ""


class Refused(Exception):
    """An answer that ends a request early."""

    def __init__(self, status, body, headers=None):
        super().__init__(status)
        self.status, self.body, self.headers = status, body, headers or {}


class Peer:
    """A store. Subclasses answer in `answer`; each `control_NAME` method is a command of the test's."""

    name = "peer"

    def __init__(self, folder):
        self.folder = folder
        self.lock = threading.RLock()
        self.received = []
        self.outage = None
        self.location = None
        self.address = ""

    def answer(self, request):
        raise NotImplementedError

    def malformed(self):
        """The status and body of a failure inside the store."""
        return 503, {"error": "unavailable"}

    # === commands of the test's ===

    def control_fail(self, status=None, count=None):
        """Fails every request, or the next `count`, with this status; without one the store works again."""
        self.outage = None if status is None else [status, count]

    def control_redirect(self, location):
        """Sends every request elsewhere."""
        self.location = location

    def control_requests(self):
        """Method and path of every request so far."""
        return self.received

    def control_forget(self):
        self.received = []

    # === serving ===

    def serve_one(self, handler):
        request = Request(handler)
        with self.lock:
            self.received.append(f"{request.method} {handler.path}")
            if self.outage:
                status, count = self.outage
                if count is not None:
                    self.outage = [status, count - 1] if count > 1 else None
                return Refused(status, self.malformed()[1])
            if self.location:
                return Refused(307, None, {"Location": self.location})
            try:
                status, body = self.answer(request)
                return Refused(status, body)
            except Refused as refused:
                return refused

    def command(self, handler):
        request = Request(handler)
        with self.lock:
            result = getattr(self, "control_" + request.path.strip("/"))(**request.json())
            return Refused(200, {"result": result})


def handler_for(serve):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self):
            try:
                answer = serve(self)
            except Refused as refused:
                answer = refused
            except Exception as error:  # A mistake of the test's shows in its answer.
                answer = Refused(500, {"errors": [f"{type(error).__name__}: {error}"]})
            body = answer.body
            if not isinstance(body, bytes):
                body = b"" if body is None else json.dumps(body).encode()
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_LIST = do_HEAD = respond

        def log_message(self, *_):
            pass

    return Handler


def certificate(folder):
    """Makes an authority and a certificate for loopback; returns the paths of chain and key. `ca.pem` is for clients."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    now = datetime.datetime.now(datetime.timezone.utc)

    def build(name, issuer, key, signer, authority):
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(hours=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        if not authority:
            names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(signer, hashes.SHA256())

    def name(text):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = build(name("test authority"), name("test authority"), authority_key, authority_key, True)
    leaf = build(name("test store"), name("test authority"), key, authority_key, False)
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    paths = {}
    for file, content in [("ca.pem", authority.public_bytes(pem)), ("chain.pem", leaf.public_bytes(pem)), ("key.pem", private)]:
        paths[file] = os.path.join(folder, file)
        with open(paths[file], "wb") as out:
            out.write(content)
    return paths["chain.pem"], paths["key.pem"]


def run(make):
    """Serves the store that `make` makes until the process ends; prints where."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--folder", required=True)
    arguments.add_argument("--tls", action="store_true")
    options = arguments.parse_args()
    peer = make(options.folder)
    store = ThreadingHTTPServer(("127.0.0.1", 0), handler_for(peer.serve_one))
    control = ThreadingHTTPServer(("127.0.0.1", 0), handler_for(peer.command))
    scheme = "http"
    if options.tls:
        scheme = "https"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate(options.folder))
        store.socket = context.wrap_socket(store.socket, server_side=True, do_handshake_on_connect=False)
    peer.address = f"{scheme}://127.0.0.1:{store.server_port}"
    threading.Thread(target=control.serve_forever, daemon=True).start()
    announced = {"store": f"127.0.0.1:{store.server_port}", "control": f"127.0.0.1:{control.server_port}"}
    print(json.dumps(announced), flush=True)
    store.serve_forever()
