"""HashiCorp Vault's HTTP API, as published: KV v2, engines with leases, tokens, AppRole, Kubernetes and JWT login,
namespaces, policies. `check_vault.py` checks it with hvac, a client that has nothing to do with Keyward."""

import re
import secrets
import time
import uuid
from datetime import datetime, timezone

import jwt

from peer import Peer, Refused, run

KV_VERB = {"GET": "read", "LIST": "list", "POST": "update", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def errors(status, *messages):
    return Refused(status, {"errors": list(messages)})


def denied():
    return errors(403, "1 error occurred:\n\t* permission denied\n\n")


def stamp(seconds=None):
    return datetime.fromtimestamp(seconds or time.time(), timezone.utc).isoformat().replace("+00:00", "Z")


class Vault(Peer):
    name = "vault"

    def __init__(self, folder):
        super().__init__(folder)
        self.sealed = False
        self.tokens, self.leases, self.policies = {}, {}, {}
        # Everything below a namespace: mounts by path, and what they hold.
        self.engines, self.logins, self.kv = {}, {}, {}
        self.logged_in = []

    def malformed(self):
        return 503, {"errors": ["Vault is sealed"]}

    # === commands of the test's ===

    def control_mount(self, path, kind, namespace=""):
        self.engines[(namespace, path)] = {"kind": kind, "roles": {}}

    def control_login_mount(self, path, kind, namespace="", **settings):
        self.logins[(namespace, path)] = {"kind": kind, "roles": {}, "secret_ids": {}, **settings}

    def control_login_role(self, mount, role, namespace="", **settings):
        self.logins[(namespace, mount)]["roles"][role] = settings

    def control_secret_id(self, mount, role, secret_id, uses=0, ttl=3600, namespace=""):
        known = self.logins[(namespace, mount)]["secret_ids"]
        known[secret_id] = {"role": role, "uses": uses, "expire": time.time() + ttl}

    def control_role(self, mount, role, namespace="", ttl=60, max_ttl=120, renewable=True):
        self.engines[(namespace, mount)]["roles"][role] = {"ttl": ttl, "max_ttl": max_ttl, "renewable": renewable}

    def control_policy(self, name, rules, namespace=""):
        self.policies[(namespace, name)] = rules

    def control_token(self, policies, ttl=3600, max_ttl=0, uses=0, renewable=True, token=None, namespace=""):
        return self.issue(policies, ttl, max_ttl or ttl * 10, uses, renewable, namespace, token)["client_token"]

    def control_put(self, mount, path, data, namespace=""):
        return self.write_version(namespace, mount, path, data)["version"]

    def control_expire_tokens(self):
        """Every token ends now, as after a restart with another storage or a revocation by an operator."""
        for token in list(self.tokens):
            self.revoke_token(token)

    def control_seal(self, sealed):
        self.sealed = sealed

    def control_leases(self):
        now = time.time()
        return [
            {
                "id": lease_id,
                "path": lease["path"],
                "data": lease["data"],
                "live": not lease["revoked"] and lease["expire"] > now,
                "revoked": lease["revoked"],
                "renewals": lease["renewals"],
            }
            for lease_id, lease in self.leases.items()
        ]

    def control_logins(self):
        return self.logged_in

    def control_is_live(self, username, password):
        """Whether the database would let this pair in now."""
        return any(
            lease["live"] and lease["data"] == {"username": username, "password": password}
            for lease in self.control_leases()
        )

    # === tokens ===

    def issue(self, policies, ttl, max_ttl, uses, renewable, namespace, token=None):
        token = token or "hvs." + secrets.token_urlsafe(24)
        now = time.time()
        self.tokens[token] = {
            "policies": policies,
            "created": now,
            "ttl": ttl,
            "expire": now + ttl,
            "max_expire": now + max_ttl,
            "uses": uses,
            "renewable": renewable,
            "namespace": namespace,
            "accessor": secrets.token_urlsafe(12),
        }
        return self.auth(token)

    def auth(self, token):
        found = self.tokens[token]
        return {
            "client_token": token,
            "accessor": found["accessor"],
            "policies": found["policies"],
            "token_policies": found["policies"],
            "metadata": {},
            "lease_duration": max(0, int(found["expire"] - time.time())),
            "renewable": found["renewable"],
            "entity_id": "",
            "token_type": "service",
            "orphan": True,
            "num_uses": found["uses"],
        }

    def revoke_token(self, token):
        """A token takes its leases with it."""
        self.tokens.pop(token, None)
        for lease in self.leases.values():
            if lease["token"] == token:
                lease["revoked"] = True

    def authenticated(self, request):
        token = request.headers.get("x-vault-token") or request.bearer()
        found = self.tokens.get(token)
        if found and found["expire"] <= time.time():
            self.revoke_token(token)
            found = None
        namespace = (request.headers.get("x-vault-namespace") or "").strip("/")
        if not found:
            raise errors(403, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n")
        if namespace != found["namespace"] and not namespace.startswith(found["namespace"] + "/"):
            raise denied()
        if found["uses"]:
            found["uses"] -= 1
            if found["uses"] == 0:
                self.tokens.pop(token)
        return token, found, namespace

    def allowed(self, found, namespace, path, capability):
        if "root" in found["policies"]:
            return True
        # What the policy `default` allows.
        if path.startswith("auth/token/") and path.endswith("-self") or path in ("sys/leases/renew", "sys/leases/lookup"):
            return True
        for policy in found["policies"]:
            for pattern, capabilities in self.policies.get((namespace, policy), {}).items():
                # `+` is one segment, a `*` at the end anything.
                prefix = pattern.endswith("*")
                expression = re.escape(pattern.removesuffix("*")).replace(r"\+", "[^/]+") + (".*" if prefix else "")
                if re.fullmatch(expression, path) and capability in capabilities:
                    return True
        return False

    # === requests ===

    def answer(self, request):
        if not request.path.startswith("/v1/"):
            raise errors(404)
        path = request.path[len("/v1/") :]
        if path == "sys/health":
            return (503 if self.sealed else 200), {"initialized": True, "sealed": self.sealed, "standby": False, "version": "1.20.0"}
        if path == "sys/seal-status":
            return 200, {"type": "shamir", "initialized": True, "sealed": self.sealed, "version": "1.20.0"}
        if self.sealed:
            raise errors(503, "Vault is sealed")
        if ".." in path.split("/"):
            raise errors(400, "path cannot contain parent references")
        if path.startswith("auth/") and path.endswith("/login") and request.method in ("POST", "PUT"):
            return 200, self.login(request, path)
        token, found, namespace = self.authenticated(request)
        verb = "LIST" if request.query.get("list") == "true" else request.method
        if verb == "LIST":
            path = path.rstrip("/") + "/"
        capability = KV_VERB.get(verb, "deny")
        if not self.allowed(found, namespace, path, capability):
            raise denied()
        if path.startswith("auth/token/"):
            return self.token_request(request, path, token, found)
        if path.startswith("sys/leases/"):
            return self.lease_request(request, path, token)
        for (space, mount), engine in self.engines.items():
            if space == namespace and path.startswith(mount + "/"):
                rest = path[len(mount) + 1 :]
                if engine["kind"] == "kv":
                    return self.kv_request(request, verb, namespace, mount, rest)
                return self.lease(request, namespace, mount, engine, rest, token)
        raise errors(404, f'no handler for route "{path}". route entry not found.')

    def envelope(self, data=None, auth=None, lease_id="", renewable=False, lease_duration=0):
        return {
            "request_id": str(uuid.uuid4()),
            "lease_id": lease_id,
            "renewable": renewable,
            "lease_duration": lease_duration,
            "data": data,
            "wrap_info": None,
            "warnings": None,
            "auth": auth,
        }

    def token_request(self, request, path, token, found):
        action = path[len("auth/token/") :]
        now = time.time()
        if action == "lookup-self" and request.method == "GET":
            data = {"id": token, "ttl": int(found["expire"] - now), "creation_ttl": found["ttl"], "renewable": found["renewable"],
                    "policies": found["policies"], "num_uses": found["uses"], "accessor": found["accessor"], "type": "service",
                    "expire_time": stamp(found["expire"])}
            return 200, self.envelope(data)
        if action == "renew-self" and request.method in ("POST", "PUT"):
            if not found["renewable"]:
                raise errors(400, "lease is not renewable")
            found["expire"] = min(now + found["ttl"], found["max_expire"])
            return 200, self.envelope(auth=self.auth(token))
        if action == "revoke-self" and request.method in ("POST", "PUT"):
            self.revoke_token(token)
            return 204, None
        raise errors(405, "unsupported operation")

    def login(self, request, path):
        namespace = (request.headers.get("x-vault-namespace") or "").strip("/")
        mount = path[len("auth/") : -len("/login")]
        method = self.logins.get((namespace, mount))
        if not method:
            raise denied()
        body = request.json()
        role = getattr(self, "login_" + method["kind"])(method, body)
        self.logged_in.append(f"{mount}:{body.get('role') or body.get('role_id')}")
        auth = self.issue(role["policies"], role.get("ttl", 3600), role.get("max_ttl", 36000), role.get("uses", 0),
                          role.get("renewable", True), namespace)
        return self.envelope(auth=auth)

    def login_approle(self, method, body):
        if not body.get("role_id"):
            raise errors(400, "missing role_id")
        known = method["secret_ids"].get(body.get("secret_id"))
        roles = {role["role_id"]: (name, role) for name, role in method["roles"].items()}
        name, role = roles.get(body["role_id"], (None, None))
        if not role:
            raise errors(400, "invalid role or secret ID")
        if not known or known["role"] != name or known["expire"] <= time.time():
            raise errors(400, "invalid role or secret ID")
        if known["uses"]:
            known["uses"] -= 1
            if known["uses"] == 0:
                del method["secret_ids"][body["secret_id"]]
        return role

    def claims(self, method, body, audience):
        token = body.get("jwt")
        if not token:
            raise errors(400, "missing jwt")
        try:
            header = jwt.get_unverified_header(token)
            keys = jwt.PyJWKSet.from_dict(method["jwks"]).keys
            key = next(key for key in keys if key.key_id == header.get("kid"))
            options = {"require": ["exp", "sub"], "verify_aud": bool(audience)}
            return jwt.decode(token, key.key, algorithms=["ES256", "RS256", "EdDSA"], audience=audience, issuer=method.get("issuer"),
                              options=options)
        except (jwt.PyJWTError, StopIteration) as error:
            raise errors(400, f"error validating token: {error}") from None

    def login_jwt(self, method, body):
        role = method["roles"].get(body.get("role"))
        if not role:
            raise errors(400, f'role "{body.get("role")}" could not be found')
        claims = self.claims(method, body, role.get("bound_audiences"))
        if role.get("bound_subject") and claims["sub"] != role["bound_subject"]:
            raise errors(400, "error validating claims: sub claim does not match bound subject")
        for name, value in role.get("bound_claims", {}).items():
            if claims.get(name) != value:
                raise errors(400, f'error validating claims: claim "{name}" does not match any associated bound claim values')
        return role

    def login_kubernetes(self, method, body):
        role = method["roles"].get(body.get("role"))
        if not role:
            raise errors(400, f'invalid role name "{body.get("role")}"')
        try:
            claims = self.claims(method, body, role.get("audience"))
        except Refused:
            raise errors(403, "permission denied") from None
        parts = claims["sub"].split(":")
        if parts[:2] != ["system", "serviceaccount"] or len(parts) != 4:
            raise errors(403, "permission denied")
        if parts[2] not in role["bound_service_account_namespaces"]:
            raise errors(403, "namespace not authorized")
        if parts[3] not in role["bound_service_account_names"]:
            raise errors(403, "service account name not authorized")
        return role

    # === KV v2 ===

    def write_version(self, namespace, mount, path, data):
        entry = self.kv.setdefault((namespace, mount, path), {"created": stamp(), "versions": {}, "current": 0})
        entry["current"] += 1
        version = {"data": data, "created_time": stamp(), "deletion_time": "", "destroyed": False, "version": entry["current"],
                   "custom_metadata": None}
        entry["versions"][entry["current"]] = version
        return version

    @staticmethod
    def metadata(version):
        return {key: value for key, value in version.items() if key != "data"}

    def kv_request(self, request, verb, namespace, mount, rest):
        kind, _, path = rest.partition("/")
        entry = self.kv.get((namespace, mount, path))
        if kind == "data" and verb == "GET":
            wanted = int(request.query.get("version") or 0) or (entry or {}).get("current")
            version = entry and entry["versions"].get(wanted)
            if not version:
                raise errors(404)
            if version["destroyed"] or version["deletion_time"]:
                raise Refused(404, self.envelope({"data": None, "metadata": self.metadata(version)}))
            return 200, self.envelope({"data": version["data"], "metadata": self.metadata(version)})
        if kind == "data" and verb in ("POST", "PUT"):
            body = request.json()
            if not isinstance(body.get("data"), dict):
                raise errors(400, "no data provided")
            cas = (body.get("options") or {}).get("cas")
            if cas is not None and cas != (entry["current"] if entry else 0):
                raise errors(400, "check-and-set parameter did not match the current version")
            return 200, self.envelope(self.metadata(self.write_version(namespace, mount, path, body["data"])))
        if kind == "data" and verb == "DELETE" and entry:
            entry["versions"][entry["current"]]["deletion_time"] = stamp()
            return 204, None
        if kind in ("delete", "undelete", "destroy") and verb in ("POST", "PUT") and entry:
            for number in request.json().get("versions", []):
                version = entry["versions"][int(number)]
                if kind == "destroy":
                    version.update(destroyed=True, data=None)
                else:
                    version["deletion_time"] = stamp() if kind == "delete" else ""
            return 204, None
        if kind == "metadata" and verb == "LIST":
            names = {key[2][len(path.rstrip("/") + "/") if path else 0 :].split("/")[0] for key in self.kv if key[:2] == (namespace, mount)}
            return 200, self.envelope({"keys": sorted(names)})
        if kind == "metadata" and verb == "GET" and entry:
            versions = {str(number): self.metadata(version) for number, version in entry["versions"].items()}
            return 200, self.envelope({"current_version": entry["current"], "created_time": entry["created"], "versions": versions,
                                       "max_versions": 0, "oldest_version": 1})
        if kind == "metadata" and verb == "DELETE" and entry:
            del self.kv[(namespace, mount, path)]
            return 204, None
        raise errors(404)

    # === engines with leases ===

    def lease(self, request, namespace, mount, engine, rest, token):
        kind, _, name = rest.partition("/")
        role = engine["roles"].get(name)
        if request.method != "GET" or kind not in ("creds", "token"):
            raise errors(405, "unsupported operation")
        if not role:
            raise errors(400, f"unknown role: {name}")
        now = time.time()
        random = secrets.token_urlsafe(18)
        data = {
            "database": {"username": f"v-{name}-{random[:8]}", "password": random},
            "aws": {"access_key": "AKIA" + random[:16].upper(), "secret_key": random, "security_token": None},
            "gcp": {"token": "ya29." + random, "token_ttl": role["ttl"], "expires_at_seconds": int(now + role["ttl"])},
        }[engine["kind"]]
        lease_id = f"{mount}/{rest}/{secrets.token_urlsafe(15)}"
        self.leases[lease_id] = {"path": f"{mount}/{rest}", "data": data, "expire": now + role["ttl"], "max_expire": now + role["max_ttl"],
                                 "role": role, "token": token, "revoked": False, "renewals": 0, "namespace": namespace}
        return 200, self.envelope(data, lease_id=lease_id, renewable=role["renewable"], lease_duration=role["ttl"])

    def lease_request(self, request, path, token):
        action = path[len("sys/leases/") :]
        if action not in ("renew", "revoke", "lookup") or request.method not in ("POST", "PUT"):
            raise errors(405, "unsupported operation")
        lease_id = request.json().get("lease_id")
        lease = self.leases.get(lease_id)
        now = time.time()
        if action == "revoke":
            # Revoking what is gone is no error.
            if lease:
                lease["revoked"] = True
            return 204, None
        if not lease or lease["revoked"] or lease["expire"] <= now:
            raise errors(400, "invalid lease" if action == "lookup" else "lease not found")
        if action == "lookup":
            return 200, self.envelope({"id": lease_id, "renewable": lease["role"]["renewable"], "ttl": int(lease["expire"] - now)})
        if not lease["role"]["renewable"]:
            raise errors(400, "lease is not renewable")
        increment = request.json().get("increment") or lease["role"]["ttl"]
        lease["expire"] = min(now + increment, lease["max_expire"])
        lease["renewals"] += 1
        return 200, self.envelope(lease_id=lease_id, renewable=True, lease_duration=int(round(lease["expire"] - now)))


if __name__ == "__main__":
    run(Vault)
