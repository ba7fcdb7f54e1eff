# Tests of keyward.rego with the data of the demo. Run them with `cargo test --release -p keyward-server --lib rego`.

package keyward_test

import data.keyward

demo_user := {
	"key": "k", "issuer": "demo", "subject": "alice", "tenant": "demo", "agent": "demo-agent", "kind": "user",
	"roles": ["demo-user"], "claims": {},
}

call(principal, tool, arguments) := {
	"revision": "2025-11-25",
	"environment": "development",
	"server": {"name": "demo", "mode": "mcp"},
	"principal": principal,
	"operation": {
		"kind": "request", "method": "tools/call", "target": tool,
		"arguments": arguments, "params": {"name": tool, "arguments": arguments},
	},
	"http": {"method": "POST", "path": "/mcp", "authority": "mcp.example", "class": "write"},
	"bindings": [{"id": "demo-api-key", "mode": "service_account", "owner": "platform-team", "risk": null}],
	"source": {"address": "127.0.0.1"},
	"time": {"unix_secs": 1785240000, "rfc3339": "2026-07-28T12:00:00Z"},
}

message(kind, method) := object.union(
	call(demo_user, null, {}),
	{"operation": {"kind": kind, "method": method, "target": null, "arguments": {}, "params": {}}},
)

with_roles(roles) := object.union(demo_user, {"roles": roles})

test_demo_user_may_echo if {
	decision := keyward.decision with input as call(demo_user, "echo", {"message": "hello"})
	decision.allow == true
	decision.rule == "tool_by_role"
}

test_demo_user_may_leak if {
	decision := keyward.decision with input as call(demo_user, "leak", {"carrier": "text", "form": "plain"})
	decision.allow == true
}

test_demo_user_may_not_delete_everything if {
	decision := keyward.decision with input as call(demo_user, "delete_everything", {})
	decision.allow == false
	decision.rule == "default_deny"
}

test_unknown_tool_reads_like_a_forbidden_one if {
	unknown := keyward.decision with input as call(demo_user, "no_such_tool", {})
	forbidden := keyward.decision with input as call(demo_user, "delete_everything", {})
	unknown == forbidden
}

test_no_role_no_tool if {
	decision := keyward.decision with input as call(with_roles([]), "echo", {"message": "hello"})
	decision.allow == false
}

test_unknown_role_no_tool if {
	decision := keyward.decision with input as call(with_roles(["root"]), "echo", {"message": "hello"})
	decision.allow == false
}

test_a_message_may_have_1000_characters_and_no_more if {
	thousand := concat("", ["x" | some _ in numbers.range(1, 1000)])
	allowed := keyward.decision with input as call(demo_user, "echo", {"message": thousand})
	allowed.allow == true
	denied := keyward.decision with input as call(demo_user, "echo", {"message": concat("", [thousand, "x"])})
	denied.allow == false
	denied.rule == "argument_denied"
}

test_forbidden_message_is_denied_in_any_case if {
	denied := keyward.decision with input as call(demo_user, "echo", {"message": "this is FORBIDDEN here"})
	denied.allow == false
	denied.rule == "argument_denied"
}

test_missing_argument_is_denied if {
	denied := keyward.decision with input as call(demo_user, "echo", {})
	denied.allow == false
}

test_argument_of_another_type_is_denied if {
	every value in [null, 1, true, ["forbidden"], {"a": "forbidden"}] {
		denied := keyward.decision with input as call(demo_user, "echo", {"message": value})
		denied.allow == false
		denied.rule == "argument_denied"
	}
}

test_admin_only_from_known_networks if {
	inside := keyward.decision with input as call(with_roles(["demo-admin"]), "delete_everything", {})
	inside.allow == true
	elsewhere := object.union(call(with_roles(["demo-admin"]), "delete_everything", {}), {"source": {"address": "192.0.2.1"}})
	outside := keyward.decision with input as elsewhere
	outside.allow == false
	nowhere := object.union(call(with_roles(["demo-admin"]), "delete_everything", {}), {"source": {"address": null}})
	unknown := keyward.decision with input as nowhere
	unknown.allow == false
}

test_admin_only_in_development if {
	production := object.union(call(with_roles(["demo-admin"]), "delete_everything", {}), {"environment": "production"})
	decision := keyward.decision with input as production
	decision.allow == false
}

test_lifecycle_for_everybody if {
	every method in ["initialize", "ping", "server/discover", "tools/list", "logging/setLevel", "completion/complete"] {
		decision := keyward.decision with input as message("request", method)
		decision.allow == true
		decision.rule == "lifecycle"
	}
	every method in ["notifications/initialized", "notifications/cancelled", "notifications/progress"] {
		decision := keyward.decision with input as message("notification", method)
		decision.allow == true
	}
	every kind in ["response", "stream_open", "session_end"] {
		decision := keyward.decision with input as message(kind, "")
		decision.allow == true
	}
}

test_unknown_methods_are_denied if {
	every method in ["tools/call", "roots/list", "sampling/createMessage", "no/such", ""] {
		decision := keyward.decision with input as message("request", method)
		decision.allow == false
	}
	decision := keyward.decision with input as message("notification", "notifications/no_such")
	decision.allow == false
}

test_a_request_method_is_no_notification if {
	decision := keyward.decision with input as message("notification", "tools/list")
	decision.allow == false
}

test_methods_by_role if {
	allowed := keyward.decision with input as message("request", "resources/read")
	allowed.rule == "method_by_role"
	denied := keyward.decision with input as message("request", "resources/subscribe")
	denied.allow == false
}

test_roles_from_data_are_bound_to_the_issuer if {
	user := with_roles([])
	granted := keyward.decision with input as call(user, "leak", {}) with data.users as {"demo|alice": ["demo-user"]}
	granted.allow == true
	other := keyward.decision with input as call(user, "leak", {}) with data.users as {"other|alice": ["demo-user"]}
	other.allow == false
	agent := keyward.decision with input as call(user, "leak", {}) with data.agents as {"demo|demo-agent": ["demo-user"]}
	agent.allow == true
}

http(class, path) := object.union(call(with_roles(["demo-reader"]), null, {}), {
	"revision": null,
	"server": {"name": "demo-http", "mode": "http"},
	"operation": {"kind": "http", "method": "GET", "target": null, "arguments": {}, "params": {}},
	"http": {"method": "GET", "path": path, "authority": "api.example", "class": class},
})

test_http_by_class_and_path if {
	read := keyward.decision with input as http("read", "/v1/things")
	read.allow == true
	write := keyward.decision with input as http("write", "/v1/things")
	write.allow == false
}
