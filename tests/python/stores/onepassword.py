"""The REST API of a 1Password Connect server, after its published description 1.8.1."""

import re
import secrets
import string

from peer import Peer, Refused, run

ALPHABET = string.ascii_lowercase + "234567"


def failure(status, message):
    return Refused(status, {"status": status, "message": message})


class OnePassword(Peer):
    name = "onepassword"

    def __init__(self, folder):
        super().__init__(folder)
        self.tokens, self.vaults, self.items = {}, {}, {}

    def malformed(self):
        return 503, {"status": 503, "message": "the server is syncing"}

    @staticmethod
    def new_id():
        return "".join(secrets.choice(ALPHABET) for _ in range(26))

    # === commands of the test's ===

    def control_token(self, token, vaults):
        """A token with access to vaults of these names."""
        self.tokens[token] = vaults

    def control_put(self, vault, item, fields):
        """Makes or replaces an item. Fields are `[section or null, label, value]`. Returns the ids of vault and item."""
        vault_id = next((key for key, name in self.vaults.items() if name == vault), None)
        if vault_id is None:
            vault_id = self.new_id()
            self.vaults[vault_id] = vault
        item_id = next((key for key, found in self.items.items() if found["title"] == item and found["vault"] == vault_id), None)
        return [vault_id, self.write(vault_id, item_id or self.new_id(), item, fields)]

    def control_duplicate(self, vault, item, fields):
        """A second item with the same title."""
        vault_id = next(key for key, name in self.vaults.items() if name == vault)
        return self.write(vault_id, self.new_id(), item, fields)

    def write(self, vault_id, item_id, title, fields):
        sections = {name: f"section-{index}" for index, name in enumerate(sorted({field[0] for field in fields if field[0]}))}
        self.items[item_id] = {
            "title": title, "vault": vault_id, "version": self.items.get(item_id, {}).get("version", 0) + 1,
            "sections": [{"id": id, "label": label} for label, id in sections.items()],
            "fields": [{"id": label if label in ("username", "password") else self.new_id(), "label": label, "value": value,
                        "type": "CONCEALED", **({"section": {"id": sections[section]}} if section else {})}
                       for section, label, value in fields]}
        return item_id

    # === requests ===

    def answer(self, request):
        if request.path == "/heartbeat":
            return 200, b"."
        vaults = self.tokens.get(request.bearer())
        if vaults is None:
            raise failure(401, "Invalid token signature")
        if request.method != "GET":
            raise failure(405, "Method not allowed")
        readable = {key: name for key, name in self.vaults.items() if name in vaults}
        if request.path == "/v1/vaults":
            wanted = self.filter(request, "name")
            return 200, [{"id": key, "name": name, "type": "USER_CREATED"} for key, name in readable.items() if wanted in (None, name)]
        match = re.fullmatch(r"/v1/vaults/([a-z0-9]{26})(/items)?(?:/([a-z0-9]{26}))?", request.path)
        if not match:
            raise failure(400, "Invalid Vault UUID")
        vault, items, item = match.groups()
        if vault not in self.vaults:
            raise failure(404, "Vault not found")
        if vault not in readable:
            raise failure(403, "vault is not in scope")
        if not items:
            return 200, {"id": vault, "name": self.vaults[vault]}
        if not item:
            wanted = self.filter(request, "title")
            return 200, [self.summary(key) for key, found in self.items.items() if found["vault"] == vault and wanted in (None, found["title"])]
        if self.items.get(item, {}).get("vault") != vault:
            raise failure(404, "Item not found")
        found = self.items[item]
        return 200, {**self.summary(item), "sections": found["sections"], "fields": found["fields"]}

    def summary(self, item):
        found = self.items[item]
        return {"id": item, "title": found["title"], "vault": {"id": found["vault"]}, "category": "LOGIN", "version": found["version"]}

    @staticmethod
    def filter(request, attribute):
        """The value of `attribute eq "value"`."""
        if "filter" not in request.query:
            return None
        match = re.fullmatch(attribute + r' eq "((?:[^"\\]|\\.)*)"', request.query["filter"])
        if not match:
            raise failure(400, "Invalid filter")
        return re.sub(r"\\(.)", r"\1", match[1])


if __name__ == "__main__":
    run(OnePassword)
