"""Azure Key Vault's secrets (api-version 7.4 and 7.5), and what gives tokens for it: the instance metadata service and
Microsoft Entra's token endpoint with a client secret or a federated assertion."""

import re
import secrets
import time

import jwt

from peer import Peer, Refused, run

VERSIONS = ("7.4", "7.5", "7.6")


def failure(status, code, message, inner=None, headers=None):
    error = {"code": code, "message": message}
    if inner:
        error["innererror"] = {"code": inner}
    return Refused(status, {"error": error}, headers)


class Azure(Peer):
    name = "azure"

    def __init__(self, folder):
        super().__init__(folder)
        self.tokens, self.clients, self.federated, self.access, self.versions, self.disabled = {}, {}, {}, set(), {}, set()
        self.challenge_resource = None
        self.token_secs = 3600
        self.without_token = 0

    def malformed(self):
        return 503, {"error": {"code": "ServiceUnavailable", "message": "The service is unavailable."}}

    # === commands of the test's ===

    def control_client(self, tenant, client_id, client_secret):
        self.clients[(tenant, client_id)] = client_secret

    def control_federated(self, tenant, client_id, jwks, subject):
        self.federated[(tenant, client_id)] = (jwks, subject)

    def control_allow(self, principal):
        """The role Key Vault Secrets User on this vault."""
        self.access.add(principal)

    def control_put(self, name, value):
        version = secrets.token_hex(16)
        self.versions.setdefault(name, []).append((version, value))
        return version

    def control_disable(self, name):
        self.disabled.add(name)

    def control_challenge(self, resource):
        """The resource that the challenge names instead of this vault's own."""
        self.challenge_resource = resource

    def control_expire_tokens(self):
        self.tokens = {}

    # === requests ===

    def token(self, principal, resource):
        token = "eyJ0." + secrets.token_urlsafe(24)
        self.tokens[token] = (principal, resource, time.time() + self.token_secs)
        return token

    def resource(self):
        return self.address.rsplit(":", 1)[0]

    def answer(self, request):
        if request.path == "/metadata/identity/oauth2/token":
            return self.managed_identity(request)
        entra = re.fullmatch(r"/([^/]+)/oauth2/v2\.0/token", request.path)
        if entra and request.method == "POST":
            return self.entra(request.form(), entra[1])
        match = re.fullmatch(r"/secrets(?:/([0-9A-Za-z-]{1,127})(?:/([0-9a-f]{32}))?/?)?", request.path)
        if not match or request.method != "GET":
            raise failure(404, "NotFound", "The requested resource was not found.")
        if request.query.get("api-version") not in VERSIONS:
            raise failure(400, "BadParameter", "The specified version is not recognized. Consider using the latest supported version.")
        principal, resource, expires = self.tokens.get(request.bearer(), (None, None, 0))
        if expires <= time.time() or resource != self.resource():
            if not request.bearer():
                self.without_token += 1
            challenge = f'Bearer authorization="{self.address}/tenant", resource="{self.challenge_resource or self.resource()}"'
            raise failure(401, "Unauthorized", "AKV10000: Request is missing a Bearer or PoP token.",
                          headers={"WWW-Authenticate": challenge})
        if principal not in self.access:
            raise failure(403, "Forbidden", "Caller is not authorized to perform action on resource.", "ForbiddenByRbac")
        name, wanted = match[1], match[2]
        if not name:
            return 200, {"value": [{"id": f"{self.address}/secrets/{known}"} for known in self.versions], "nextLink": None}
        versions = self.versions.get(name, [])
        found = next((item for item in reversed(versions) if wanted in (None, item[0])), None)
        if not found:
            raise failure(404, "SecretNotFound", f"A secret with (name/id) {name} was not found in this key vault.")
        if name in self.disabled:
            raise failure(403, "Forbidden", "Operation get is not allowed on a disabled secret.", "SecretDisabled")
        now = int(time.time())
        attributes = {"enabled": True, "created": now, "updated": now, "recoveryLevel": "Recoverable+Purgeable"}
        return 200, {"value": found[1], "id": f"{self.address}/secrets/{name}/{found[0]}", "attributes": attributes}

    def managed_identity(self, request):
        if request.headers.get("metadata") != "true" or request.headers.get("x-forwarded-for"):
            raise Refused(400, {"error": "invalid_request", "error_description": "Required metadata header not specified"})
        if request.query.get("api-version") != "2018-02-01" or "resource" not in request.query:
            raise Refused(400, {"error": "invalid_request", "error_description": "Required query variable is missing"})
        client = request.query.get("client_id", "system-assigned")
        body = {"access_token": self.token(client, request.query["resource"]), "expires_in": str(self.token_secs),
                "expires_on": str(int(time.time()) + self.token_secs), "resource": request.query["resource"], "token_type": "Bearer"}
        return 200, body

    def entra(self, form, tenant):
        def refuse(error, description):
            raise Refused(401 if error == "invalid_client" else 400, {"error": error, "error_description": description})

        client = form.get("client_id")
        scope = form.get("scope", "")
        if form.get("grant_type") != "client_credentials" or not scope.endswith("/.default"):
            refuse("invalid_request", "AADSTS900144: The request body must contain the parameters.")
        if "client_assertion" in form:
            jwks, subject = self.federated.get((tenant, client), ({"keys": []}, None))
            try:
                header = jwt.get_unverified_header(form["client_assertion"])
                key = next(key for key in jwt.PyJWKSet.from_dict(jwks).keys if key.key_id == header.get("kid"))
                claims = jwt.decode(form["client_assertion"], key.key, algorithms=["ES256", "RS256"], audience="api://AzureADTokenExchange")
            except (jwt.PyJWTError, StopIteration):
                refuse("invalid_client", "AADSTS700027: The certificate with identifier used to sign the client assertion is not registered.")
            if claims["sub"] != subject:
                refuse("invalid_client", "AADSTS700213: No matching federated identity record found.")
        elif not client or self.clients.get((tenant, client)) != form.get("client_secret"):
            refuse("invalid_client", "AADSTS7000215: Invalid client secret provided.")
        return 200, {"access_token": self.token(client, scope.removesuffix("/.default")), "expires_in": self.token_secs,
                     "ext_expires_in": self.token_secs, "token_type": "Bearer"}


if __name__ == "__main__":
    run(Azure)
