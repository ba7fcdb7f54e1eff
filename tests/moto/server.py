"""An AWS on loopback: moto, behind a front that checks what moto does not and remembers what was asked.

moto recomputes signatures in headers with botocore and enforces IAM policies, once `/front/enforce` was asked. The front
refuses requests outside AWS's time window, verifies presigned URLs with botocore before it hands them on signed in
headers, stands itself for every API of API Gateway, and shows what it received at `/front/requests`. Its address is the
first line that it prints.
"""

import datetime
import io
import json
import threading
import urllib.parse

from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from moto import settings
from moto.core import DEFAULT_ACCOUNT_ID
from moto.iam.models import iam_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.sts.models import sts_backends
from werkzeug.serving import make_server

WINDOW = datetime.timedelta(minutes=5)
FORM = "%Y%m%dT%H%M%SZ"
MAX_REMEMBERED = 200


class Refused(Exception):
    """A request that AWS would refuse."""


class Front:
    """The WSGI application in front of moto."""

    def __init__(self, moto):
        self.moto = moto
        self.lock = threading.Lock()
        self.received = []

    def __call__(self, environ, start_response):
        target = environ["RAW_URI"]
        if target == "/front/requests":
            return self.report(environ, start_response)
        if target == "/front/enforce":
            settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
            start_response("200 OK", [("Content-Length", "0")])
            return []
        body = read_body(environ)
        self.remember(environ, target, body)
        try:
            check_time(environ, target)
            if "X-Amz-Signature=" in target:
                hand_on(environ, target, body)
            if ".execute-api." in environ["HTTP_HOST"]:
                check_api(environ, target, body)
                start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "8")])
                return [b"verified"]
        except Refused as error:
            text = f"<Error><Code>FrontRefused</Code><Message>{error}</Message></Error>".encode()
            start_response("403 Forbidden", [("Content-Type", "text/xml"), ("Content-Length", str(len(text)))])
            return [text]
        return self.moto(environ, start_response)

    def report(self, environ, start_response):
        """Shows what was received; a DELETE forgets it."""
        with self.lock:
            text = json.dumps(self.received).encode()
            if environ["REQUEST_METHOD"] == "DELETE":
                self.received.clear()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(text)))])
        return [text]

    def remember(self, environ, target, body):
        """Keeps a request, its body as Latin-1 so that any bytes are shown."""
        headers = headers_of(environ)
        entry = {
            "method": environ["REQUEST_METHOD"],
            "target": target,
            "headers": headers,
            "body": body.decode("latin-1"),
            "form": dict(urllib.parse.parse_qsl(body.decode("latin-1"))) if is_form(headers) else {},
        }
        with self.lock:
            self.received = self.received[-MAX_REMEMBERED:] + [entry]


def is_form(headers):
    return headers.get("content-type", "").startswith("application/x-www-form-urlencoded")


def headers_of(environ):
    headers = {key[5:].replace("_", "-").lower(): value for key, value in environ.items() if key.startswith("HTTP_")}
    for key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(key):
            headers[key.replace("_", "-").lower()] = environ[key]
    return headers


def read_body(environ):
    """Reads the whole body and puts it back."""
    if environ.get("wsgi.input_terminated"):
        body = environ["wsgi.input"].read()
    else:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    environ["CONTENT_LENGTH"] = str(len(body))
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    environ.pop("wsgi.input_terminated", None)
    return body


def query_of(target):
    return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(target).query, keep_blank_values=True))


def check_time(environ, target):
    """AWS takes a signature for five minutes around its time, and a presigned URL for as long as it says."""
    query = query_of(target)
    stamp = environ.get("HTTP_X_AMZ_DATE") or query.get("X-Amz-Date")
    # Preparing calls of a test carry no time.
    if not stamp:
        return
    made = datetime.datetime.strptime(stamp, FORM).replace(tzinfo=datetime.timezone.utc)
    now = datetime.datetime.now(datetime.timezone.utc)
    life = datetime.timedelta(seconds=int(query.get("X-Amz-Expires", WINDOW.total_seconds())))
    if made > now + WINDOW or now > made + life:
        raise Refused("RequestTimeTooSkewed")


def secret_of(access_key_id):
    """The keys behind an id, as moto knows them."""
    for user in iam_backends[DEFAULT_ACCOUNT_ID]["aws"].list_users("/", None, None):
        for key in user.access_keys:
            if key.access_key_id == access_key_id:
                return Credentials(access_key_id, key.secret_access_key)
    for session in sts_backends[DEFAULT_ACCOUNT_ID]["aws"].assumed_roles:
        if session.access_key_id == access_key_id:
            return Credentials(access_key_id, session.secret_access_key, session.session_token)
    raise Refused("InvalidAccessKeyId")


def check_api(environ, target, body):
    """Verifies a signature in headers with botocore, over the target as it came, as API Gateway does."""
    sent = headers_of(environ)
    algorithm, _, rest = sent.get("authorization", "").partition(" ")
    parts = dict(part.partition("=")[::2] for part in rest.split(", "))
    if algorithm != "AWS4-HMAC-SHA256" or set(parts) != {"Credential", "SignedHeaders", "Signature"}:
        raise Refused("MissingAuthenticationToken")
    key_id, _, region, service, _ = parts["Credential"].split("/")
    if environ["HTTP_HOST"].split(".")[1:3] != [service, region]:
        raise Refused("SignatureDoesNotMatch: it is for another service or region")
    credentials = secret_of(key_id)
    if (credentials.token or "") != sent.get("x-amz-security-token", ""):
        raise Refused("InvalidToken")
    headers = {name: sent[name] for name in parts["SignedHeaders"].split(";")}
    url = f"https://{environ['HTTP_HOST']}{target}"
    request = AWSRequest(method=environ["REQUEST_METHOD"], url=url, data=body, headers=headers)
    request.context["timestamp"] = sent["x-amz-date"]
    auth = SigV4Auth(credentials, service, region)
    if auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request) != parts["Signature"]:
        raise Refused("SignatureDoesNotMatch")


def hand_on(environ, target, body):
    """Verifies a presigned URL with botocore, then signs the request in headers, which is what moto understands."""
    query = query_of(target)
    key_id, date, region, service, _ = query["X-Amz-Credential"].split("/")
    credentials = secret_of(key_id)
    if (credentials.token or "") != query.get("X-Amz-Security-Token", ""):
        raise Refused("InvalidToken")
    bare = "&".join(pair for pair in urllib.parse.urlsplit(target).query.split("&") if not pair.startswith("X-Amz-Signature="))
    path = urllib.parse.urlsplit(target).path
    url = f"https://{environ['HTTP_HOST']}{path}"
    sent = headers_of(environ)
    headers = {name: sent[name] for name in query["X-Amz-SignedHeaders"].split(";")}
    request = AWSRequest(method=environ["REQUEST_METHOD"], url=f"{url}?{bare}", data=body, headers=headers)
    request.context["timestamp"] = query["X-Amz-Date"]
    in_query, in_headers = (S3SigV4QueryAuth, S3SigV4Auth) if service == "s3" else (SigV4QueryAuth, SigV4Auth)
    auth = in_query(credentials, service, region)
    # What SigV4QueryAuth itself would do to headers and query is done already: only the canonical request is wanted.
    canonical = auth.canonical_request(request)
    if auth.signature(auth.string_to_sign(request, canonical), request) != query["X-Amz-Signature"]:
        raise Refused("SignatureDoesNotMatch")
    rest = "&".join(pair for pair in bare.split("&") if not pair.startswith("X-Amz-"))
    plain = AWSRequest(method=environ["REQUEST_METHOD"], url=url + (f"?{rest}" if rest else ""), data=body)
    plain.headers["Host"] = environ["HTTP_HOST"]
    in_headers(credentials, service, region).add_auth(plain)
    for name, value in plain.headers.items():
        environ["HTTP_" + name.upper().replace("-", "_")] = value
    environ["QUERY_STRING"] = rest
    environ["RAW_URI"] = environ["REQUEST_URI"] = path + (f"?{rest}" if rest else "")


def main():
    moto = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, Front(moto), threaded=True, request_handler=MotoRequestHandler)
    print(json.dumps({"aws": f"127.0.0.1:{server.server_port}"}), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
