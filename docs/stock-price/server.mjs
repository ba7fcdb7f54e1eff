// An MCP server with one tool, `price`. It asks a market data API whose key it does not have: it calls through Envoy with its
// own access token, and Keyward puts the key of this client on the request.

import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';

import { toNodeHandler } from '@modelcontextprotocol/node';
import { McpServer, createMcpHandler, fromJsonSchema } from '@modelcontextprotocol/server';

// Where Envoy listens, and the token that says who this server is. Both come from its deployment; there is no API key.
const { PRICE_API, PRICE_TOKEN_FILE } = process.env;

const INPUT = {
    type: 'object',
    properties: { symbol: { type: 'string', pattern: '^[A-Z]{1,5}$' } },
    required: ['symbol'],
    additionalProperties: false
};

function build() {
    const server = new McpServer({ name: 'stock-price', version: '1.0.0' });
    const description = 'The last price of a stock';
    server.registerTool('price', { description, inputSchema: fromJsonSchema(INPUT) }, async ({ symbol }) => {
        // Read each time: the token is short-lived and somebody else renews the file.
        const token = readFileSync(PRICE_TOKEN_FILE, 'utf8').trim();
        const answer = await fetch(`${PRICE_API}/v1/last?symbol=${encodeURIComponent(symbol)}`, {
            headers: { authorization: `Bearer ${token}` },
            signal: AbortSignal.timeout(5000)
        });
        const text = await answer.text();
        return { content: [{ type: 'text', text }], isError: !answer.ok };
    });
    return server;
}

const serve = toNodeHandler(createMcpHandler(build), { onerror: console.error });
const listener = createServer((request, response) => {
    if (request.url.split('?')[0] !== '/stocks') return response.writeHead(404).end();
    serve(request, response).catch((error) => {
        console.error(error);
        response.end();
    });
});
listener.listen(0, '127.0.0.1', () => {
    const { address, port } = listener.address();
    console.log(JSON.stringify({ mcp: `${address}:${port}` }));
});
