"""Checks `vault.py` with hvac: whatever an independent client of Vault asks and expects must hold. Prints one JSON object."""

import importlib.metadata
import json
import sys

import hvac
import requests


def expect_error(kind, call):
    try:
        call()
    except kind:
        return
    raise AssertionError(f"no {kind.__name__}")


def main(address, control, signed_jwt, service_account_jwt, jwks):
    def prepare(command, **arguments):
        answer = requests.post(f"http://{control}/{command}", json=arguments, timeout=5)
        answer.raise_for_status()
        return answer.json()["result"]

    url = f"http://{address}"
    jwks = json.loads(jwks)
    checked = []
    for namespace in ("", "team-a"):
        prepare("mount", path="kv", kind="kv", namespace=namespace)
        prepare("mount", path="database", kind="database", namespace=namespace)
        prepare("role", mount="database", role="app", ttl=60, max_ttl=90, namespace=namespace)
        prepare("login_mount", path="approle", kind="approle", namespace=namespace)
        prepare("login_mount", path="jwt", kind="jwt", jwks=jwks, namespace=namespace)
        prepare("login_mount", path="kubernetes", kind="kubernetes", jwks=jwks, namespace=namespace)
        prepare("policy", name="app", namespace=namespace, rules={
            "kv/data/team/*": ["read", "update"], "kv/metadata/team/*": ["read", "list"], "kv/delete/team/*": ["update"],
            "kv/undelete/team/*": ["update"], "kv/destroy/team/*": ["update"], "database/creds/app": ["read"],
            "sys/leases/revoke": ["update"]})
        role = {"policies": ["app"], "ttl": 60, "max_ttl": 120}
        prepare("login_role", mount="approle", role="app", role_id="role-app", namespace=namespace, **role)
        prepare("login_role", mount="jwt", role="app", bound_audiences=["vault"], bound_subject="keyward", namespace=namespace, **role)
        prepare("login_role", mount="kubernetes", role="app", bound_service_account_names=["keyward"],
                bound_service_account_namespaces=["gateways"], namespace=namespace, **role)
        prepare("secret_id", mount="approle", role="app", secret_id="once", uses=1, namespace=namespace)

        client = hvac.Client(url=url, namespace=namespace or None)
        assert client.sys.is_initialized and not client.sys.is_sealed()
        assert not client.is_authenticated()
        expect_error(hvac.exceptions.InvalidRequest, lambda: client.auth.approle.login("role-app", "wrong"))
        login = client.auth.approle.login("role-app", "once")
        assert login["auth"]["renewable"] and client.is_authenticated()
        other = hvac.Client(url=url, namespace=namespace or None)
        expect_error(hvac.exceptions.InvalidRequest, lambda: other.auth.approle.login("role-app", "once"))
        checked.append("approle")

        kv = client.secrets.kv.v2
        for value in ("one", "two"):
            kv.create_or_update_secret("team/app", secret={"key": value}, mount_point="kv")
        read = lambda **more: kv.read_secret_version("team/app", mount_point="kv", raise_on_deleted_version=True, **more)
        assert read()["data"]["data"] == {"key": "two"}
        assert read(version=1)["data"]["data"] == {"key": "one"}
        assert kv.read_secret_metadata("team/app", mount_point="kv")["data"]["current_version"] == 2
        kv.delete_secret_versions("team/app", [2], mount_point="kv")
        expect_error(hvac.exceptions.InvalidPath, read)
        kv.undelete_secret_versions("team/app", [2], mount_point="kv")
        assert read()["data"]["metadata"]["version"] == 2
        kv.destroy_secret_versions("team/app", [2], mount_point="kv")
        expect_error(hvac.exceptions.InvalidPath, read)
        expect_error(hvac.exceptions.InvalidRequest,
                     lambda: kv.create_or_update_secret("team/app", secret={"key": "3"}, cas=1, mount_point="kv"))
        assert kv.list_secrets("team", mount_point="kv")["data"]["keys"] == ["app"]
        expect_error(hvac.exceptions.InvalidPath,
                     lambda: kv.read_secret_version("team/none", mount_point="kv", raise_on_deleted_version=True))
        expect_error(hvac.exceptions.Forbidden,
                     lambda: kv.read_secret_version("other/app", mount_point="kv", raise_on_deleted_version=True))
        checked.append("kv-v2")

        made = client.secrets.database.generate_credentials("app", mount_point="database")
        assert made["lease_duration"] == 60 and made["renewable"] and made["data"]["username"]
        renewed = client.sys.renew_lease(made["lease_id"], increment=30)
        assert renewed["lease_duration"] == 30, renewed
        assert client.sys.renew_lease(made["lease_id"], increment=600)["lease_duration"] <= 90
        client.sys.revoke_lease(made["lease_id"])
        expect_error(hvac.exceptions.InvalidRequest, lambda: client.sys.renew_lease(made["lease_id"]))
        checked.append("leases")

        assert client.auth.token.renew_self()["auth"]["lease_duration"] > 0
        assert client.auth.token.lookup_self()["data"]["policies"] == ["app"]
        child = client.secrets.database.generate_credentials("app", mount_point="database")
        client.auth.token.revoke_self()
        assert not client.is_authenticated()
        lease = next(lease for lease in prepare("leases") if lease["id"] == child["lease_id"])
        assert lease["revoked"], "a lease outlived its token"
        checked.append("tokens")

        for signed in (signed_jwt, signed_jwt[:-6] + "AAAAAA"):
            client = hvac.Client(url=url, namespace=namespace or None)
            login = lambda: client.auth.jwt.jwt_login(role="app", jwt=signed)
            if signed is signed_jwt:
                assert login()["auth"]["client_token"]
            else:
                expect_error(hvac.exceptions.InvalidRequest, login)
        checked.append("jwt")

        client = hvac.Client(url=url, namespace=namespace or None)
        assert client.auth.kubernetes.login(role="app", jwt=service_account_jwt)["auth"]["client_token"]
        expect_error(hvac.exceptions.InvalidRequest, lambda: client.auth.kubernetes.login(role="none", jwt=service_account_jwt))
        expect_error(hvac.exceptions.Forbidden, lambda: client.auth.kubernetes.login(role="app", jwt=signed_jwt))
        checked.append("kubernetes")
        foreign = hvac.Client(url=url, namespace="team-b", token=client.token)
        expect_error(hvac.exceptions.Forbidden, lambda: foreign.auth.token.lookup_self()) if namespace else None
        checked.append("namespaces")

    prepare("seal", sealed=True)
    expect_error(hvac.exceptions.VaultDown, lambda: client.auth.token.lookup_self())
    print(json.dumps({"hvac": importlib.metadata.version("hvac"), "checked": checked}))


if __name__ == "__main__":
    main(*sys.argv[1:])
