"""Google Cloud's Secret Manager v1 over REST, and what gives tokens for it: the metadata server, the token endpoint for
service account keys (RFC 7523), the Security Token Service and the impersonation of a service account."""

import base64
import re
import secrets
import time

import jwt

from peer import Peer, Refused, run

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
GRANTS = {"jwt": "urn:ietf:params:oauth:grant-type:jwt-bearer", "exchange": "urn:ietf:params:oauth:grant-type:token-exchange"}


def crc32c(data):
    """The Castagnoli polynomial, bit by bit."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


assert crc32c(b"123456789") == 0xE3069283


def failure(code, status, message):
    return Refused(code, {"error": {"code": code, "message": message, "status": status}})


def oauth(description, error="invalid_grant", code=400):
    return Refused(code, {"error": error, "error_description": description})


class Gcp(Peer):
    name = "gcp"

    def __init__(self, folder):
        super().__init__(folder)
        self.tokens, self.keys, self.access, self.versions, self.destroyed = {}, {}, {}, {}, set()
        self.corrupt = False
        self.token_secs = 3600
        self.provider = None

    def malformed(self):
        return 503, {"error": {"code": 503, "message": "The service is currently unavailable.", "status": "UNAVAILABLE"}}

    # === commands of the test's ===

    def control_service_account(self, email, key_id, public_key):
        self.keys[email] = (key_id, public_key)

    def control_provider(self, audience, jwks, subject_audience):
        """A workload identity provider that trusts these keys."""
        self.provider = {"audience": audience, "jwks": jwks, "subject_audience": subject_audience}

    def control_allow(self, principal, secret):
        """The role roles/secretmanager.secretAccessor on one secret, `projects/P/secrets/S`."""
        self.access.setdefault(secret, set()).add(principal)

    def control_put(self, secret, value):
        self.versions.setdefault(secret, []).append(value.encode())
        return len(self.versions[secret])

    def control_destroy(self, secret, version):
        self.destroyed.add((secret, version))

    def control_corrupt(self, corrupt):
        """Whether payloads arrive damaged."""
        self.corrupt = corrupt

    def control_token_secs(self, seconds):
        self.token_secs = seconds

    def control_expire_tokens(self):
        self.tokens = {}

    # === requests ===

    def token(self, principal):
        token = "ya29." + secrets.token_urlsafe(24)
        self.tokens[token] = (principal, time.time() + self.token_secs)
        return token

    def answer(self, request):
        if request.path.startswith("/computeMetadata/"):
            return self.metadata(request)
        if request.path == "/token" and request.method == "POST":
            return 200, self.service_account(request.form())
        if request.path == "/v1/token" and request.method == "POST":
            return 200, self.exchange(request.form())
        principal, expires = self.tokens.get(request.bearer(), (None, 0))
        if expires <= time.time():
            raise failure(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        impersonated = re.fullmatch(r"/v1/projects/-/serviceAccounts/([^/:]+):generateAccessToken", request.path)
        if impersonated and request.method == "POST":
            if SCOPE not in request.json().get("scope", []):
                raise failure(400, "INVALID_ARGUMENT", "scope is missing")
            if (principal, impersonated[1]) not in self.access.get("impersonation", set()) and not principal.startswith("principal://"):
                raise failure(403, "PERMISSION_DENIED", "Permission 'iam.serviceAccounts.getAccessToken' denied")
            until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + self.token_secs))
            return 200, {"accessToken": self.token(impersonated[1]), "expireTime": until}
        return self.secret(request, principal)

    def metadata(self, request):
        if request.headers.get("metadata-flavor") != "Google" or request.headers.get("x-forwarded-for"):
            raise Refused(403, b"Missing required header: Metadata-Flavor", {"Metadata-Flavor": "Google"})
        account = re.fullmatch(r"/computeMetadata/v1/instance/service-accounts/([^/]+)/token", request.path)
        if not account:
            raise Refused(404, b"not found", {"Metadata-Flavor": "Google"})
        email = "default@project.iam.gserviceaccount.com" if account[1] == "default" else account[1]
        body = {"access_token": self.token(email), "expires_in": self.token_secs, "token_type": "Bearer"}
        raise Refused(200, body, {"Metadata-Flavor": "Google", "Server": "Metadata Server for VM"})

    def service_account(self, form):
        if form.get("grant_type") != GRANTS["jwt"]:
            raise oauth("Invalid grant_type", "unsupported_grant_type")
        assertion = form.get("assertion", "")
        try:
            email = jwt.decode(assertion, options={"verify_signature": False})["iss"]
            key_id, key = self.keys[email]
            claims = jwt.decode(assertion, key, algorithms=["RS256"], audience=self.address + "/token",
                                options={"require": ["exp", "iat", "iss"]})
        except (jwt.PyJWTError, KeyError) as error:
            raise oauth(f"Invalid JWT Signature: {error}") from None
        if jwt.get_unverified_header(assertion).get("kid") != key_id or claims["exp"] - claims["iat"] > 3600:
            raise oauth("Invalid JWT")
        if claims.get("scope") != SCOPE:
            raise oauth("Invalid OAuth scope", "invalid_scope")
        return {"access_token": self.token(email), "expires_in": self.token_secs, "token_type": "Bearer"}

    def exchange(self, form):
        if form.get("grant_type") != GRANTS["exchange"] or form.get("audience") != (self.provider or {}).get("audience"):
            raise oauth("Invalid value for audience", "invalid_target")
        if form.get("requested_token_type") != "urn:ietf:params:oauth:token-type:access_token" or form.get("scope") != SCOPE:
            raise oauth("the request is incomplete", "invalid_request")
        try:
            header = jwt.get_unverified_header(form["subject_token"])
            key = next(key for key in jwt.PyJWKSet.from_dict(self.provider["jwks"]).keys if key.key_id == header.get("kid"))
            claims = jwt.decode(form["subject_token"], key.key, algorithms=["ES256", "RS256"], audience=self.provider["subject_audience"])
        except (jwt.PyJWTError, KeyError, StopIteration) as error:
            raise oauth(f"The subject token is invalid: {error}") from None
        return {"access_token": self.token(f"principal://{claims['sub']}"), "expires_in": self.token_secs, "token_type": "Bearer",
                "issued_token_type": "urn:ietf:params:oauth:token-type:access_token"}

    def secret(self, request, principal):
        match = re.fullmatch(r"/v1/(projects/[^/]+(?:/locations/[^/]+)?/secrets/([A-Za-z0-9_-]{1,255}))/versions/([^/:]+):access", request.path)
        if not match or request.method != "GET":
            raise failure(404, "NOT_FOUND", "Method not found.")
        secret, version = match[1], match[3]
        if principal not in self.access.get(secret, set()):
            raise failure(403, "PERMISSION_DENIED", f"Permission 'secretmanager.versions.access' denied for resource "
                                                    f"'{secret}/versions/{version}' (or it may not exist).")
        versions = self.versions.get(secret, [])
        number = len(versions) if version == "latest" else int(version) if version.isdigit() else 0
        if not 1 <= number <= len(versions):
            raise failure(404, "NOT_FOUND", f"Secret Version [{secret}/versions/{version}] not found.")
        if (secret, number) in self.destroyed:
            raise failure(400, "FAILED_PRECONDITION", f"Secret Version [{secret}/versions/{number}] is in DESTROYED state.")
        value = versions[number - 1]
        checksum = crc32c(value)
        if self.corrupt:
            value = bytes([value[0] ^ 1]) + value[1:]
        payload = {"data": base64.b64encode(value).decode(), "dataCrc32c": str(checksum)}
        return 200, {"name": f"{secret}/versions/{number}", "payload": payload}


if __name__ == "__main__":
    run(Gcp)
