// The official TypeScript client up to 2025-11-25 (@modelcontextprotocol/sdk) as an agent. Arguments, as one JSON
// object: `url`, `token`, `revision`, `tour` (`demo` or `everything`), `leaks`.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

import { describe, everythingTour, recordingFetch, tour } from './tour.mjs';

/** Offers a revision of our choice: the SDK always offers its newest one. */
class PinnedTransport extends StreamableHTTPClientTransport {
    constructor(url, options, revision) {
        super(url, options);
        this.revision = revision;
    }

    async send(message, options) {
        const isOffer = message.method === 'initialize';
        const params = isOffer ? { ...message.params, protocolVersion: this.revision } : message.params;
        return super.send(isOffer ? { ...message, params } : message, options);
    }
}

const { url, token, revision, tour: name, leaks } = JSON.parse(process.argv[2]);
const { fetch, received } = recordingFetch();
const requestInit = { headers: { authorization: `Bearer ${token}` } };
const transport = new PinnedTransport(new URL(url), { fetch, requestInit }, revision);
const client = new Client({ name: 'keyward-tests', version: '1.0.0' }, { capabilities: {} });
const errors = [];
client.onerror = (error) => errors.push(describe(error));
await client.connect(transport);
const call = (tool, given) => client.callTool({ name: tool, arguments: given });
const callWithProgress = (tool, given, onprogress) =>
    client.callTool({ name: tool, arguments: given }, undefined, { onprogress });
const listTools = () => client.listTools();
const report =
    name === 'everything'
        ? await everythingTour({ listTools, call, callWithProgress })
        : await tour({ listTools, call, leaks });
report.revision = transport.protocolVersion;
report.server = client.getServerVersion()?.name;
await transport.terminateSession();
await client.close();
console.log(JSON.stringify({ ...report, errors, received: received() }));
process.exit(0);
