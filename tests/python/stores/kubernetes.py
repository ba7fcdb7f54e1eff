"""The Secret API of a Kubernetes API server: service account tokens that it verifies, roles, and its `Status` errors."""

import base64

import jwt

from peer import Peer, Refused, run


def status(code, reason, message):
    return Refused(code, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
                          "reason": reason, "code": code})


class Kubernetes(Peer):
    name = "kubernetes"

    def __init__(self, folder):
        super().__init__(folder)
        self.jwks, self.audience, self.rules, self.secrets = {"keys": []}, None, [], {}
        self.version = 1000

    def malformed(self):
        return 503, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "ServiceUnavailable", "code": 503,
                     "message": "the server is currently unable to handle the request"}

    # === commands of the test's ===

    def control_keys(self, jwks, audience):
        self.jwks, self.audience = jwks, audience

    def control_allow(self, subject, namespace, name, verbs=("get",)):
        """A Role with `resourceNames`, bound to one service account."""
        self.rules.append((subject, namespace, name, list(verbs)))

    def control_put(self, namespace, name, data):
        """`data` maps keys to text."""
        self.version += 1
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
        self.secrets[(namespace, name)] = {"kind": "Secret", "apiVersion": "v1", "type": "Opaque", "data": encoded, "metadata": {
            "name": name, "namespace": namespace, "resourceVersion": str(self.version), "uid": f"uid-{name}"}}

    def control_delete(self, namespace, name):
        del self.secrets[(namespace, name)]

    # === requests ===

    def answer(self, request):
        try:
            header = jwt.get_unverified_header(request.bearer())
            key = next(key for key in jwt.PyJWKSet.from_dict(self.jwks).keys if key.key_id == header.get("kid"))
            claims = jwt.decode(request.bearer(), key.key, algorithms=["ES256", "RS256"], audience=self.audience,
                                options={"require": ["exp", "sub"]})
        except (jwt.PyJWTError, StopIteration):
            raise status(401, "Unauthorized", "Unauthorized") from None
        parts = request.path.strip("/").split("/")
        if parts[:3] != ["api", "v1", "namespaces"] or len(parts) not in (5, 6) or parts[4] != "secrets":
            raise status(404, "NotFound", "the server could not find the requested resource")
        if request.method != "GET":
            raise status(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
        namespace, name = parts[3], parts[5] if len(parts) == 6 else ""
        verb = "get" if name else "list"
        if not any(rule[:3] == (claims["sub"], namespace, name) and verb in rule[3] for rule in self.rules):
            raise status(403, "Forbidden", f'secrets "{name}" is forbidden: User "{claims["sub"]}" cannot {verb} resource "secrets" '
                                           f'in API group "" in the namespace "{namespace}"')
        found = self.secrets.get((namespace, name))
        if not found:
            raise status(404, "NotFound", f'secrets "{name}" not found')
        return 200, found


if __name__ == "__main__":
    run(Kubernetes)
