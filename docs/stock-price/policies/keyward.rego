# Analysts' agents may ask for prices; the MCP server, and nobody else, may ask the market data API.

package keyward

default decision := {"allow": false, "rule": "default_deny", "explanation": "no rule allows this"}

decision := {"allow": true, "rule": "analysts_ask", "explanation": "an analyst"} if {
	input.server.name == "stocks"
	"analyst" in input.principal.roles
} else := {"allow": true, "rule": "price_clients_read", "explanation": "a client of the market data API"} if {
	input.server.name == "prices"
	input.principal.kind == "agent"
	"price-client" in input.principal.roles
}
