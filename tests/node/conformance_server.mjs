// The tools, resources and prompts that the conformance suite's server scenarios ask for.

import { McpServer, ResourceTemplate, createRequestStateCodec } from '@modelcontextprotocol/server';

import { addInputTools } from './conformance_input.mjs';
import { addPrompts } from './conformance_prompts.mjs';
import { addTools } from './conformance_tools.mjs';
import { PIXEL } from './media.mjs';

// Shared by all instances: a stateless request may come back to any of them.
const codec = createRequestStateCodec({ key: crypto.getRandomValues(new Uint8Array(32)) });

/** One server: that of a session, or that of one stateless request. */
export function buildServer(changes) {
    const server = new McpServer(
        { name: 'keyward-conformance-upstream', version: '1.0.0' },
        {
            capabilities: {
                tools: { listChanged: true },
                prompts: { listChanged: true },
                resources: { subscribe: true, listChanged: true },
                logging: {},
                completions: {}
            },
            requestState: { verify: codec.verify },
            cacheHints: { 'tools/list': { ttlMs: 1000, cacheScope: 'private' } }
        }
    );
    addTools(server, changes);
    addInputTools(server, codec);
    addPrompts(server);
    addResources(server);
    // A subscription is only acknowledged: nothing here ever changes by itself.
    server.server.setRequestHandler('resources/subscribe', async () => ({}));
    server.server.setRequestHandler('resources/unsubscribe', async () => ({}));
    server.server.setRequestHandler('completion/complete', async (request) => {
        const typed = request.params.argument.value;
        const values = ['paris', 'park', 'party'].filter((value) => value.startsWith(typed));
        return { completion: { values, total: values.length, hasMore: false } };
    });
    return server;
}

function addResources(server) {
    const text = { description: 'A static text', mimeType: 'text/plain' };
    server.registerResource('static-text', 'test://static-text', text, async (uri) => ({
        contents: [{ uri: uri.href, mimeType: 'text/plain', text: 'This is the content of the static text resource.' }]
    }));
    const binary = { description: 'A static picture', mimeType: 'image/png' };
    server.registerResource('static-binary', 'test://static-binary', binary, async (uri) => ({
        contents: [{ uri: uri.href, mimeType: 'image/png', blob: PIXEL }]
    }));
    const watched = { description: 'Something to subscribe to', mimeType: 'text/plain' };
    server.registerResource('watched', 'test://watched-resource', watched, async (uri) => ({
        contents: [{ uri: uri.href, mimeType: 'text/plain', text: 'Watched resource content' }]
    }));
    const template = new ResourceTemplate('test://template/{id}/data', { list: undefined });
    const data = { description: 'A text made from its address', mimeType: 'application/json' };
    server.registerResource('template', template, data, async (uri, { id }) => {
        const value = { id, templateTest: true, data: `Data for ID: ${id}` };
        return { contents: [{ uri: uri.href, mimeType: 'application/json', text: JSON.stringify(value) }] };
    });
}
