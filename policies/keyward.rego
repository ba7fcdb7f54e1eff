# Who may do what: roles (RBAC) narrowed by attributes (ABAC). Everything here is read from data.json, so that most
# changes need no Rego. Whatever no rule allows is denied.
#
# Written for speed: a tool is looked up (`tools[server][tool]`), never searched for.

package keyward

default decision := {"allow": false, "rule": "default_deny", "explanation": "no rule allows this"}

# The order is the order of precedence: the first denial wins, then the first permission.
decision := {"allow": false, "rule": "argument_denied", "explanation": concat("; ", argument_problems)} if {
	count(argument_problems) > 0
} else := {"allow": true, "rule": "lifecycle", "explanation": "every principal may keep a session"} if {
	lifecycle
} else := {"allow": true, "rule": "tool_by_role", "explanation": concat(", ", tool_roles)} if {
	count(tool_roles) > 0
} else := {"allow": true, "rule": "method_by_role", "explanation": concat(", ", method_roles)} if {
	count(method_roles) > 0
} else := {"allow": true, "rule": "http_by_role", "explanation": concat(", ", http_roles)} if {
	count(http_roles) > 0
}

# --- Roles -------------------------------------------------------------------------------------------------------

# The roles in the token, and those that data.json gives to this user or this agent. Keys are `issuer|subject` and
# `issuer|client id`, so that a subject of one issuer is never taken for that of another.
roles contains role if some role in input.principal.roles

roles contains role if {
	input.principal.kind == "user"
	some role in data.users[concat("|", [input.principal.issuer, input.principal.subject])]
}

roles contains role if {
	some role in data.agents[concat("|", [input.principal.issuer, input.principal.agent])]
}

# A role counts only where its conditions hold. A condition that cannot be evaluated does not hold.
active_roles contains role if {
	some role in roles
	data.roles[role]
	environment_holds(data.roles[role])
	network_holds(data.roles[role])
	hours_hold(data.roles[role])
}

environment_holds(definition) if not definition.environments

environment_holds(definition) if definition.environments[input.environment] == true

network_holds(definition) if not definition.networks

network_holds(definition) if {
	is_string(input.source.address)
	some network in definition.networks
	net.cidr_contains(network, input.source.address)
}

# `hours_utc` is [from, to), in whole hours.
hours_hold(definition) if not definition.hours_utc

hours_hold(definition) if {
	hour := floor((input.time.unix_secs % 86400) / 3600)
	hour >= definition.hours_utc[0]
	hour < definition.hours_utc[1]
}

# --- Tools -------------------------------------------------------------------------------------------------------

tool_roles contains role if {
	input.operation.kind == "request"
	input.operation.method == "tools/call"
	some role in active_roles
	data.roles[role].tools[input.server.name][input.operation.target] == true
}

# --- Arguments ---------------------------------------------------------------------------------------------------

# What data.json demands of the arguments of this tool: an argument that is missing, or of another type, is a problem too.
argument_rules := data.arguments[input.server.name][input.operation.target] if {
	input.operation.method == "tools/call"
}

argument_problems contains sprintf("argument %v is not a %v", [name, rule.type]) if {
	some name, rule in argument_rules
	not has_type(name, rule.type)
}

argument_problems contains sprintf("argument %v is longer than %v", [name, rule.max_length]) if {
	some name, rule in argument_rules
	has_type(name, "string")
	count(input.operation.arguments[name]) > rule.max_length
}

argument_problems contains sprintf("argument %v holds a forbidden text", [name]) if {
	some name, rule in argument_rules
	has_type(name, "string")
	some text in rule.forbidden
	contains(lower(input.operation.arguments[name]), lower(text))
}

argument_problems contains sprintf("argument %v is not one of the choices", [name]) if {
	some name, rule in argument_rules
	rule.one_of
	not input.operation.arguments[name] in rule.one_of
}

has_type(name, type) if type_name(input.operation.arguments[name]) == type

# --- Lifecycle ---------------------------------------------------------------------------------------------------

# What every authenticated principal may do on an MCP server: open, keep and close a session, and see the lists.
lifecycle if {
	input.server.mode == "mcp"
	input.operation.kind == "request"
	input.operation.method in {
		"initialize",
		"ping",
		"server/discover",
		"tools/list",
		"prompts/list",
		"resources/list",
		"resources/templates/list",
		"logging/setLevel",
		"completion/complete",
		"subscriptions/listen",
	}
}

lifecycle if {
	input.server.mode == "mcp"
	input.operation.kind == "notification"
	input.operation.method in {
		"notifications/initialized",
		"notifications/cancelled",
		"notifications/progress",
		"notifications/roots/list_changed",
	}
}

# Answers to what the upstream asked (sampling, elicitation, roots), the event stream, and the end of a session.
lifecycle if {
	input.server.mode == "mcp"
	input.operation.kind in {"response", "stream_open", "session_end"}
}

# --- Other methods -----------------------------------------------------------------------------------------------

# prompts/get, resources/read, tasks/… : named for each role and server.
method_roles contains role if {
	input.server.mode == "mcp"
	input.operation.kind == "request"
	input.operation.method != "tools/call"
	some role in active_roles
	data.roles[role].methods[input.server.name][input.operation.method] == true
}

# --- Plain HTTP --------------------------------------------------------------------------------------------------

# `http[server][class]` is a list of path prefixes; a prefix ends at a segment.
http_roles contains role if {
	input.server.mode == "http"
	input.operation.kind == "http"
	some role in active_roles
	some prefix in data.roles[role].http[input.server.name][input.http.class]
	is_below(input.http.path, prefix)
}

is_below(path, prefix) if path == prefix

is_below(path, prefix) if {
	endswith(prefix, "/")
	startswith(path, prefix)
}

is_below(path, prefix) if startswith(path, concat("", [prefix, "/"]))
