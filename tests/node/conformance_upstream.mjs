// The upstream of the conformance runs: the official TypeScript server SDK, sessions for the earlier revisions and the
// stateless handler for 2026-07-28 on one port. Prints its address as JSON, and at GET /report what it received.

import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';

import {
    NodeStreamableHTTPServerTransport,
    hostHeaderValidation,
    originValidation,
    toNodeHandler,
    toWebRequest
} from '@modelcontextprotocol/node';
import { createMcpHandler, isInitializeRequest, isLegacyRequest } from '@modelcontextprotocol/server';

import { buildServer } from './conformance_server.mjs';
import { EventLog } from './event_log.mjs';

const MAX_SESSIONS = 500;
const LOOPBACK = ['localhost', '127.0.0.1', '[::1]'];

// The name under which Keyward calls it, and the credential it should come with.
const { UPSTREAM_HOST = '', UPSTREAM_SECRET = '' } = process.env;

const sessions = new Map();
const received = { requests: 0, with_key: 0, with_authorization: 0 };
const changes = {};
const modern = createMcpHandler(() => buildServer(changes), { legacy: 'reject', onerror: report });
changes.notify = modern.notify;
const serveModern = toNodeHandler(modern, { onerror: report });
const hostIsAllowed = hostHeaderValidation([...LOOPBACK, UPSTREAM_HOST]);
const originIsAllowed = originValidation(LOOPBACK);

const listener = createServer((request, response) => {
    if (request.url === '/report') {
        response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(received));
        return;
    }
    received.requests += 1;
    received.with_key += request.headers['x-api-key'] === UPSTREAM_SECRET ? 1 : 0;
    received.with_authorization += request.headers.authorization === undefined ? 0 : 1;
    if (!hostIsAllowed(request, response) || !originIsAllowed(request, response)) return;
    serve(request, response).catch((error) => {
        report(error);
        if (!response.headersSent) response.writeHead(500);
        response.end();
    });
});

listener.listen(0, '127.0.0.1', () => {
    const { address, port } = listener.address();
    console.log(JSON.stringify({ mcp: `${address}:${port}` }));
});

async function serve(request, response) {
    if (request.url.split('?')[0] !== '/mcp') {
        response.writeHead(404).end();
        return;
    }
    if (request.method !== 'POST') {
        await serveSession(request, response, undefined);
        return;
    }
    const web = await toWebRequest(request);
    const legacy = await isLegacyRequest(web);
    const text = await web.text();
    let body;
    try {
        body = JSON.parse(text);
    } catch {
        const error = { jsonrpc: '2.0', id: null, error: { code: -32700, message: 'parse error' } };
        response.writeHead(400, { 'content-type': 'application/json' }).end(JSON.stringify(error));
        return;
    }
    await (legacy ? serveSession(request, response, body) : serveModern(request, response, body));
}

async function serveSession(request, response, body) {
    const id = request.headers['mcp-session-id'];
    let transport = id === undefined ? undefined : sessions.get(id);
    if (transport === undefined && id !== undefined) {
        const error = { jsonrpc: '2.0', id: body?.id ?? null, error: { code: -32001, message: 'session not found' } };
        response.writeHead(404, { 'content-type': 'application/json' }).end(JSON.stringify(error));
        return;
    }
    if (transport === undefined) {
        if (request.method === 'POST' && isInitializeRequest(body) && sessions.size < MAX_SESSIONS) {
            transport = await openSession();
        } else {
            const error = { jsonrpc: '2.0', id: body?.id ?? null, error: { code: -32000, message: 'no session' } };
            response.writeHead(400, { 'content-type': 'application/json' }).end(JSON.stringify(error));
            return;
        }
    }
    await transport.handleRequest(request, response, body);
}

async function openSession() {
    const transport = new NodeStreamableHTTPServerTransport({
        sessionIdGenerator: () => randomUUID(),
        eventStore: new EventLog(),
        retryInterval: 200,
        onsessioninitialized: (id) => sessions.set(id, transport),
        onsessionclosed: (id) => sessions.delete(id)
    });
    await buildServer(changes).connect(transport);
    return transport;
}

function report(error) {
    console.error(error);
}
