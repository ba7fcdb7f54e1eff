// The official TypeScript client of the second line (@modelcontextprotocol/client), all revisions, as an agent.
// Arguments, as one JSON object: `url`, `token`, `revision` (`auto`: as negotiated), `tour`, `leaks`.

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

import { describe, everythingTour, recordingFetch, tour } from './tour.mjs';

const STATELESS = '2026-07-28';

const { url, token, revision, tour: name, leaks } = JSON.parse(process.argv[2]);
const { fetch, received } = recordingFetch();
const authProvider = { token: async () => token };
const transport = new StreamableHTTPClientTransport(new URL(url), { fetch, authProvider });
const negotiation = {
    auto: { versionNegotiation: { mode: 'auto' } },
    [STATELESS]: { versionNegotiation: { mode: { pin: STATELESS } } }
};
const options = negotiation[revision] ?? { supportedProtocolVersions: [revision] };
const client = new Client({ name: 'keyward-tests', version: '1.0.0' }, { capabilities: {}, ...options });
const errors = [];
client.onerror = (error) => errors.push(describe(error));
await client.connect(transport);
const call = (tool, given) => client.callTool({ name: tool, arguments: given });
const callWithProgress = (tool, given, onprogress) => client.callTool({ name: tool, arguments: given }, { onprogress });
const listTools = () => client.listTools();
const report =
    name === 'everything'
        ? await everythingTour({ listTools, call, callWithProgress })
        : await tour({ listTools, call, leaks });
report.revision = client.getNegotiatedProtocolVersion();
report.server = client.getServerVersion()?.name;
await client.close();
console.log(JSON.stringify({ ...report, errors, received: received() }));
process.exit(0);
